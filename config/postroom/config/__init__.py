"""What is set and what is kept: settings, the database, the vault, accounts and senders."""
