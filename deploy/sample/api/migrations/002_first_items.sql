INSERT INTO items (text) VALUES
    ('Hello from the database'),
    ('Every pull request gets its own guestbook');
