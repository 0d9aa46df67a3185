"""BullMQ with Nodemailer's pool: jobs and outcomes lie in Redis, and one process sends over kept sessions."""
