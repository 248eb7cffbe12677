import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('annotation', '0003_model_jobs'),
        ('inference', '0003_classifier'),
    ]

    operations = [
        migrations.AddField(
            model_name='tilescore',
            name='cell_doubt',
            field=models.FloatField(default=0.0, help_text='How many cells are hardly certain to be cells.'),
        ),
        migrations.AddField(
            model_name='tilescore',
            name='cell_embeddings',
            field=models.BinaryField(help_text='Of its cells, the best 24 first.', null=True),
        ),
        migrations.AddField(
            model_name='tilescore',
            name='class_doubt',
            field=models.FloatField(default=0.0, help_text='How many cells are of doubtful class.'),
        ),
        migrations.AddField(
            model_name='tilescore',
            name='embedding',
            field=models.BinaryField(help_text="Of the tile: the mean of its cells', weighted by their scores.", null=True),
        ),
        migrations.AlterField(
            model_name='tilescore',
            name='expected',
            field=models.JSONField(help_text="The expected boxes of each class, in the taxonomy's order."),
        ),
        migrations.CreateModel(
            name='Candidate',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('state', models.CharField(choices=[('chosen', 'in the batch'), ('reserve', 'in reserve'), ('out', 'swapped out')], max_length=7)),
                ('place', models.PositiveIntegerField()),
                ('strategy', models.CharField(max_length=9)),
                ('audit', models.BooleanField(default=False)),
                ('reason', models.CharField(max_length=200)),
                ('expected', models.JSONField(default=list, help_text="The expected boxes of each class, in the taxonomy's order.")),
                ('batch', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='candidates', to='annotation.batch')),
                ('tile', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='annotation.tile')),
            ],
            options={
                'ordering': ['place'],
                'constraints': [models.UniqueConstraint(fields=('batch', 'tile'), name='a_tile_is_put_up_once')],
            },
        ),
    ]
