"""A Celery task around smtplib: what one writes first. It opens a connection for each mail and records nothing."""
