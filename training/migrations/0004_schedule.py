import datetime

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('annotation', '0004_notice'),
        ('training', '0003_reviewing'),
    ]

    operations = [
        migrations.CreateModel(
            name='Schedule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('mode', models.CharField(choices=[('hand', 'by hand'), ('complete', 'when the batch is complete'), ('tiles', 'after so many new confirmed tiles'), ('times', 'at set times')], default='hand', max_length=8)),
                ('new_tiles', models.PositiveIntegerField(default=50)),
                ('at', models.TimeField(default=datetime.time(2, 0))),
                ('weekdays', models.CharField(default='1234567', help_text='ISO: 1 is Monday.', max_length=7)),
                ('start_next', models.BooleanField(default=False)),
                ('paused', models.BooleanField(default=False)),
                ('next_run_at', models.DateTimeField(blank=True, help_text='The next set time; a missed one stays due.', null=True)),
                ('last_run_at', models.DateTimeField(blank=True, null=True)),
                ('last_outcome', models.CharField(blank=True, max_length=300)),
                ('revision', models.PositiveIntegerField(default=0)),
                ('closed_round', models.ForeignKey(blank=True, help_text='The round after whose end the next one is to be started.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='training.round')),
                ('project', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='schedule', to='annotation.project')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('new_tiles__gte', 1)), name='a_schedule_waits_for_a_tile'), models.CheckConstraint(condition=models.Q(('weekdays', ''), _negated=True), name='a_schedule_has_a_weekday'), models.CheckConstraint(condition=models.Q(models.Q(('mode', 'times'), ('paused', False), _negated=True), ('next_run_at__isnull', False), _connector='OR'), name='a_set_time_comes_next')],
            },
        ),
    ]
