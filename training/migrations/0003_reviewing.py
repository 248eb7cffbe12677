from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0002_cross_validation'),
    ]

    operations = [
        migrations.AlterField(
            model_name='round',
            name='state',
            field=models.CharField(choices=[('selecting', 'selecting'), ('reviewing', 'ready to release'), ('pre-labelling', 'pre-labelling'), ('annotating', 'annotating'), ('closing', 'closing'), ('training', 'training'), ('evaluating', 'evaluating'), ('done', 'done'), ('cancelled', 'cancelled')], default='selecting', max_length=13),
        ),
    ]
