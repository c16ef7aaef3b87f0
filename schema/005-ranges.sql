-- The same rule without a look at every range that begins below: of those with all colours, which never overlap, only the nearest can
-- reach into another; those with some colours are few.

DROP TRIGGER IF EXISTS memory_range_once;
DROP INDEX IF EXISTS memory_grants_colored;
CREATE INDEX memory_grants_colored ON memory_grants(base) WHERE colors != -1;
CREATE TRIGGER memory_range_once BEFORE INSERT ON memory_grants WHEN NEW.base IS NOT NULL BEGIN
  SELECT RAISE(ABORT, 'memory range has an owner')
    WHERE EXISTS (SELECT 1 FROM memory_grants
                  WHERE base >= NEW.base AND base < NEW.base + NEW.size AND colors & NEW.colors != 0)
       OR EXISTS (SELECT 1 FROM memory_grants
                  WHERE colors != -1 AND base < NEW.base AND base + size > NEW.base AND colors & NEW.colors != 0)
       OR NEW.base < (SELECT base + size FROM memory_grants WHERE base < NEW.base AND colors = -1 ORDER BY base DESC LIMIT 1);
END;
