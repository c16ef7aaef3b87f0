-- Devices of the platform, each with one owner; their interrupts and registers go with them.

CREATE TABLE device_grants (
  name  TEXT PRIMARY KEY,
  row   INTEGER NOT NULL REFERENCES containers(row),
  place INTEGER NOT NULL, -- in the container's wish
  state TEXT NOT NULL DEFAULT 'granted' CHECK (state IN ('granted','quarantined'))
) STRICT;
CREATE INDEX device_grants_row ON device_grants(row);

CREATE TRIGGER device_fixed BEFORE UPDATE OF name, row ON device_grants BEGIN
  SELECT RAISE(ABORT, 'a grant does not change');
END;
CREATE TRIGGER stopped_holds_no_device BEFORE UPDATE OF state ON containers WHEN NEW.state = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container holds devices') WHERE EXISTS (SELECT 1 FROM device_grants WHERE row = NEW.row);
END;
CREATE TRIGGER stopped_gets_no_device BEFORE INSERT ON device_grants
    WHEN (SELECT state FROM containers WHERE row = NEW.row) = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container is granted nothing');
END;
CREATE TRIGGER generation_5 AFTER INSERT ON device_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_6 AFTER DELETE ON device_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
