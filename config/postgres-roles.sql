-- Roles for the audit log in PostgreSQL, so that no one of them can do it all. docs/audit.md, "Roles".
--
-- Run it as the owner of the tables, after the gateway has made them (its first start as the owner does):
--   psql "$DATABASE_URL" --file config/postgres-roles.sql
-- Then make a login for each use and put it into a role:
--   CREATE ROLE gateway LOGIN PASSWORD '…' IN ROLE sluice_writer;
-- It may be run again, after an upgrade too.

BEGIN;

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['sluice_writer', 'sluice_reader', 'sluice_rights', 'sluice_sweeper'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
END $$;

-- A gateway with AUDIT_SWEEP_SECONDS=0: it adds, and can neither read nor take what is personal.
GRANT SELECT, INSERT ON audit_log TO sluice_writer;
GRANT UPDATE (state, size, last_ts, seen_ms, frontier) ON audit_log TO sluice_writer;
GRANT USAGE ON SEQUENCE audit_log_id_seq TO sluice_writer;
GRANT SELECT, INSERT ON audit_record, audit_tile, audit_checkpoint, audit_policy TO sluice_writer;
GRANT INSERT ON audit_personal TO sluice_writer;
GRANT SELECT, INSERT, DELETE ON audit_open TO sluice_writer;
GRANT SELECT ON audit_pruned, audit_tombstone, audit_schema_version TO sluice_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON stream_sessions, stream_segments TO sluice_writer;
GRANT SELECT ON stream_schema_version TO sluice_writer;

-- Dashboards and auditors: what happened, and not of whom.
GRANT SELECT ON audit_log, audit_record, audit_tile, audit_checkpoint, audit_policy, audit_pruned,
    audit_tombstone, audit_schema_version TO sluice_reader;
GRANT SELECT (id, scope, rid, from_ms, to_ms, made_ms, until_ms, released_ms) ON audit_hold TO sluice_reader;

-- sluice audit find, export, erase, hold, release.
GRANT sluice_writer TO sluice_rights;
GRANT SELECT, DELETE, UPDATE (subject) ON audit_personal TO sluice_rights;
GRANT DELETE ON audit_record TO sluice_rights;
GRANT INSERT ON audit_pruned, audit_tombstone TO sluice_rights;
GRANT SELECT, INSERT ON audit_hold TO sluice_rights;
GRANT UPDATE (released_ms, subjects) ON audit_hold TO sluice_rights;

-- sluice audit sweep: takes what is personal without being able to read it.
GRANT sluice_writer TO sluice_sweeper;
GRANT SELECT (log, seq, field, subject), DELETE ON audit_personal TO sluice_sweeper;
GRANT DELETE ON audit_record, audit_tile, audit_checkpoint, audit_log TO sluice_sweeper;
GRANT INSERT, DELETE ON audit_pruned TO sluice_sweeper;
GRANT DELETE ON audit_tombstone TO sluice_sweeper;
GRANT SELECT ON audit_hold TO sluice_sweeper;

COMMIT;
