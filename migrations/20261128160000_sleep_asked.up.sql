-- When the provider was last asked to put the machine to sleep; null once it runs again and nothing of that can follow
-- any more. While it is set, a machine that has stopped was stopped for that, and is not lost.
ALTER TABLE machines ADD COLUMN sleep_asked_at timestamptz;
