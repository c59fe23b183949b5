-- Somebody removed the preview, or its time was over, while its pull request was open: the comparison of open pull requests
-- with previews does not make it anew, until there is another commit.
ALTER TABLE environments ADD COLUMN stays_gone boolean NOT NULL DEFAULT false;
