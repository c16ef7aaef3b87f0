-- Links and their ends, remote processors, the interrupts of virtual PCI buses. A link lives as long as it has an end.

CREATE TABLE links (
  name     TEXT PRIMARY KEY,
  slot     INTEGER NOT NULL UNIQUE CHECK (slot BETWEEN 0 AND 31),
  peers    INTEGER NOT NULL CHECK (peers >= 2),
  protocol TEXT NOT NULL,
  host     INTEGER NOT NULL, -- 1: one of its ends is the host's
  base     INTEGER NOT NULL CHECK (base >= 0 AND base < 1 << 62),
  size     INTEGER NOT NULL CHECK (size > 0 AND size < 1 << 62),
  common   INTEGER NOT NULL, -- bytes that all ends write
  output   INTEGER NOT NULL  -- bytes of each end
) STRICT;

CREATE TABLE link_ends (
  link  TEXT NOT NULL REFERENCES links(name),
  id    INTEGER NOT NULL CHECK (id >= 0),
  row   INTEGER NOT NULL REFERENCES containers(row),
  place INTEGER NOT NULL, -- in the container's wish
  state TEXT NOT NULL DEFAULT 'granted' CHECK (state IN ('granted','quarantined')),
  PRIMARY KEY (link, id)
) STRICT;
CREATE UNIQUE INDEX link_ends_row ON link_ends(row, link);

CREATE TRIGGER link_memory_once BEFORE INSERT ON links BEGIN
  SELECT RAISE(ABORT, 'the link''s memory has an owner') WHERE EXISTS (SELECT 1 FROM links
    WHERE base < NEW.base + NEW.size AND base + size > NEW.base) OR EXISTS (SELECT 1 FROM memory_grants
    WHERE base < NEW.base + NEW.size AND base + size > NEW.base);
END;
CREATE TRIGGER memory_not_of_link BEFORE INSERT ON memory_grants WHEN NEW.base IS NOT NULL BEGIN
  SELECT RAISE(ABORT, 'memory range is a link''s') WHERE EXISTS (SELECT 1 FROM links
    WHERE base < NEW.base + NEW.size AND base + size > NEW.base);
END;
CREATE TRIGGER link_end_exists BEFORE INSERT ON link_ends BEGIN
  SELECT RAISE(ABORT, 'the link has no such end') WHERE NEW.id >= (SELECT peers FROM links WHERE name = NEW.link);
END;
CREATE TRIGGER link_fixed BEFORE UPDATE ON links BEGIN
  SELECT RAISE(ABORT, 'a link does not change');
END;
CREATE TRIGGER link_end_fixed BEFORE UPDATE OF link, id, row ON link_ends BEGIN
  SELECT RAISE(ABORT, 'a grant does not change');
END;
CREATE TRIGGER link_ends_with_its_last AFTER DELETE ON link_ends
    WHEN NOT EXISTS (SELECT 1 FROM link_ends WHERE link = OLD.link) BEGIN
  DELETE FROM links WHERE name = OLD.link;
END;

-- Remote processors, and interrupts by the number (SPI) of the first of four.
CREATE TABLE remote_grants (
  name  TEXT PRIMARY KEY,
  row   INTEGER NOT NULL REFERENCES containers(row),
  place INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'granted' CHECK (state IN ('granted','quarantined'))
) STRICT;
CREATE INDEX remote_grants_row ON remote_grants(row);

CREATE TABLE irq_grants (
  spi   INTEGER PRIMARY KEY CHECK (spi >= 0),
  row   INTEGER NOT NULL UNIQUE REFERENCES containers(row),
  state TEXT NOT NULL DEFAULT 'granted' CHECK (state IN ('granted','quarantined'))
) STRICT;

CREATE TRIGGER remote_fixed BEFORE UPDATE OF name, row ON remote_grants BEGIN
  SELECT RAISE(ABORT, 'a grant does not change');
END;
CREATE TRIGGER irq_once BEFORE INSERT ON irq_grants BEGIN
  SELECT RAISE(ABORT, 'interrupt has an owner') WHERE EXISTS (SELECT 1 FROM irq_grants WHERE spi < NEW.spi + 4 AND spi + 4 > NEW.spi);
END;
CREATE TRIGGER irq_fixed BEFORE UPDATE OF spi, row ON irq_grants BEGIN
  SELECT RAISE(ABORT, 'a grant does not change');
END;

CREATE TRIGGER stopped_holds_no_link BEFORE UPDATE OF state ON containers WHEN NEW.state = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container holds links, remote processors or interrupts')
    WHERE EXISTS (SELECT 1 FROM link_ends WHERE row = NEW.row) OR EXISTS (SELECT 1 FROM remote_grants WHERE row = NEW.row)
       OR EXISTS (SELECT 1 FROM irq_grants WHERE row = NEW.row);
END;
CREATE TRIGGER stopped_gets_no_link BEFORE INSERT ON link_ends
    WHEN (SELECT state FROM containers WHERE row = NEW.row) = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container is granted nothing');
END;
CREATE TRIGGER stopped_gets_no_remote BEFORE INSERT ON remote_grants
    WHEN (SELECT state FROM containers WHERE row = NEW.row) = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container is granted nothing');
END;
CREATE TRIGGER stopped_gets_no_irq BEFORE INSERT ON irq_grants
    WHEN (SELECT state FROM containers WHERE row = NEW.row) = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container is granted nothing');
END;

CREATE TRIGGER generation_7 AFTER INSERT ON link_ends BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_8 AFTER DELETE ON link_ends BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_9 AFTER INSERT ON remote_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_10 AFTER DELETE ON remote_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_11 AFTER INSERT ON irq_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_12 AFTER DELETE ON irq_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
