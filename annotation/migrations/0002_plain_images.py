from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('annotation', '0001_initial'),
    ]

    operations = [
        migrations.AlterField(
            model_name='slide',
            name='mpp',
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name='slide',
            name='tiling',
            field=models.CharField(choices=[('paper', '15 x 20 grid'), ('edge', 'edge to edge'), ('image', 'plain image, one tile')], max_length=5),
        ),
        migrations.AddConstraint(
            model_name='slide',
            constraint=models.CheckConstraint(condition=models.Q(('mpp__isnull', False), ('tiling', 'image'), _connector='OR'), name='only_a_plain_image_lacks_mpp'),
        ),
    ]
