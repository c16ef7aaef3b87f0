-- 1: a cell that phid made in memory with an address; the record is lost that said in which.
ALTER TABLE observed_cells ADD COLUMN placed INTEGER NOT NULL DEFAULT 0 CHECK (placed IN (0, 1));
