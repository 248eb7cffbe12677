import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('annotation', '0003_model_jobs'),
    ]

    operations = [
        migrations.CreateModel(
            name='Notice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('batch-ready', 'batch ready'), ('model-done', 'model done'), ('run-failed', 'run failed')], max_length=11)),
                ('subject', models.CharField(max_length=60)),
                ('text', models.CharField(max_length=300)),
                ('path', models.CharField(help_text='Of the page that it leads to, on this site.', max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('read_at', models.DateTimeField(blank=True, null=True)),
                ('mail_after', models.DateTimeField(blank=True, help_text='When to try to mail it; empty when it is not to be mailed, or no longer.', null=True)),
                ('mail_tries', models.PositiveSmallIntegerField(default=0)),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='notices', to='annotation.project')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='notices', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-pk'],
                'indexes': [
                    models.Index(condition=models.Q(('read_at__isnull', True)), fields=['user'], name='notice_unread'),
                    models.Index(condition=models.Q(('mail_after__isnull', False)), fields=['mail_after'], name='notice_to_mail'),
                ],
                'constraints': [models.UniqueConstraint(fields=('user', 'kind', 'subject'), name='one_notice_per_subject')],
            },
        ),
    ]
