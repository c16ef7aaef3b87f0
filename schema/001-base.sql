-- phid's database, version 1. Applied once, in one transaction; never edited after a release: add 002-*.sql.
-- The keys and triggers make double ownership unrepresentable, whatever the code above does.

CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES ('generation', 1); -- of the allocation vector

-- What the platform has, rewritten at every start: the bounds of memory_grants.
CREATE TABLE pools (name TEXT PRIMARY KEY, base INTEGER, size INTEGER NOT NULL) STRICT;

CREATE TABLE containers (
  row         INTEGER PRIMARY KEY AUTOINCREMENT, -- names cell and directory: never used again
  id          TEXT NOT NULL UNIQUE,
  incarnation TEXT NOT NULL UNIQUE,
  generation  INTEGER NOT NULL DEFAULT 1,
  state       TEXT NOT NULL CHECK (state IN ('creating','created','running','paused','stopped')),
  op          TEXT CHECK (op IN ('create','start','pause','resume','kill','force-delete','end')), -- an open intent
  op_uid      INTEGER, op_key TEXT,              -- the idempotency key that the outcome goes to
  op_signal   INTEGER NOT NULL DEFAULT 0,        -- of kill
  backend     TEXT NOT NULL,
  spec        TEXT NOT NULL,                     -- JSON, complete
  payload     TEXT NOT NULL DEFAULT '[]',        -- JSON: [{role, path, sha256, size}]
  cell        TEXT,                              -- JSON, NULL when stopped
  exit        TEXT,                              -- JSON, when stopped or ending
  bundle      TEXT, oci_id TEXT, oci_root TEXT,
  annotations TEXT NOT NULL DEFAULT '{}',
  owner_uid   INTEGER NOT NULL, owner_gid INTEGER NOT NULL,
  keeper_by   TEXT NOT NULL CHECK (keeper_by IN ('caller','phid')),
  keeper_pid  INTEGER, keeper_start INTEGER,
  boot_id     TEXT NOT NULL,
  created_at  TEXT NOT NULL, started_at TEXT, stopped_at TEXT
) STRICT;

CREATE TABLE cpu_grants (
  cpu   INTEGER PRIMARY KEY CHECK (cpu >= 0),
  row   INTEGER NOT NULL REFERENCES containers(row),
  state TEXT NOT NULL DEFAULT 'granted' CHECK (state IN ('granted','quarantined'))
) STRICT;
CREATE INDEX cpu_grants_row ON cpu_grants(row);

CREATE TABLE memory_grants (
  number INTEGER PRIMARY KEY,
  row    INTEGER NOT NULL REFERENCES containers(row),
  pool   TEXT NOT NULL,
  base   INTEGER CHECK (base >= 0 AND base < 1 << 62),  -- NULL: by amount
  size   INTEGER NOT NULL CHECK (size > 0 AND size < 1 << 62),
  colors INTEGER NOT NULL DEFAULT -1,                   -- bit mask of cache colours; -1: all
  state  TEXT NOT NULL DEFAULT 'granted' CHECK (state IN ('granted','quarantined'))
) STRICT;
CREATE INDEX memory_grants_row ON memory_grants(row);
CREATE INDEX memory_grants_base ON memory_grants(base);

CREATE TRIGGER memory_range_once BEFORE INSERT ON memory_grants WHEN NEW.base IS NOT NULL BEGIN
  SELECT RAISE(ABORT, 'memory range has an owner') WHERE EXISTS (SELECT 1 FROM memory_grants
    WHERE base < NEW.base + NEW.size AND base + size > NEW.base AND colors & NEW.colors != 0);
END;
CREATE TRIGGER memory_amount BEFORE INSERT ON memory_grants WHEN NEW.base IS NULL BEGIN
  SELECT RAISE(ABORT, 'memory pool is exhausted')
    WHERE NEW.size + (SELECT coalesce(sum(size), 0) FROM memory_grants WHERE pool = NEW.pool AND base IS NULL)
        > coalesce((SELECT size FROM pools WHERE name = NEW.pool), 0);
END;
CREATE TRIGGER memory_fixed BEFORE UPDATE OF row, pool, base, size, colors ON memory_grants BEGIN
  SELECT RAISE(ABORT, 'a grant does not change');
END;
CREATE TRIGGER cpu_fixed BEFORE UPDATE OF cpu, row ON cpu_grants BEGIN
  SELECT RAISE(ABORT, 'a grant does not change');
END;
CREATE TRIGGER stopped_holds_nothing BEFORE UPDATE OF state ON containers WHEN NEW.state = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container holds units')
    WHERE EXISTS (SELECT 1 FROM cpu_grants WHERE row = NEW.row)
       OR EXISTS (SELECT 1 FROM memory_grants WHERE row = NEW.row);
END;

CREATE TRIGGER stopped_gets_no_cpu BEFORE INSERT ON cpu_grants
    WHEN (SELECT state FROM containers WHERE row = NEW.row) = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container is granted nothing');
END;
CREATE TRIGGER stopped_gets_no_memory BEFORE INSERT ON memory_grants
    WHEN (SELECT state FROM containers WHERE row = NEW.row) = 'stopped' BEGIN
  SELECT RAISE(ABORT, 'a stopped container is granted nothing');
END;

CREATE TRIGGER generation_1 AFTER INSERT ON cpu_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_2 AFTER DELETE ON cpu_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_3 AFTER INSERT ON memory_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;
CREATE TRIGGER generation_4 AFTER DELETE ON memory_grants BEGIN UPDATE meta SET value = value + 1 WHERE name = 'generation'; END;

-- What a hypervisor shows and no record explains: orphans of ours and foreign cells. Rewritten by reconcile.
CREATE TABLE observed_cells (
  backend TEXT NOT NULL, name TEXT NOT NULL, tag TEXT, cpus TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (backend, name)
) STRICT;

CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at TEXT NOT NULL, type TEXT NOT NULL, container TEXT, incarnation TEXT, detail TEXT NOT NULL DEFAULT '{}'
) STRICT;

-- A mutation's outcome by the caller's key; status NULL while it runs.
CREATE TABLE idempotency (
  uid INTEGER NOT NULL, key TEXT NOT NULL, request TEXT NOT NULL, incarnation TEXT,
  status INTEGER, problem TEXT, at INTEGER NOT NULL,
  PRIMARY KEY (uid, key)
) STRICT;
CREATE INDEX idempotency_at ON idempotency(at);
