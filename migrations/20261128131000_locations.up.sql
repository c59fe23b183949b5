-- Where the machine is wished for, in the provider's names, the best first; empty: in the account's own order.
ALTER TABLE machines ADD COLUMN locations jsonb NOT NULL DEFAULT '[]';
