"""django-post_office: mail lies in PostgreSQL, and one process sends batches of it over ten threads."""
