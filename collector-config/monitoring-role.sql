-- The role with which the Collector monitors PostgreSQL. A superuser runs this once per server, in the database that
-- POOLSCOPE_PG_DATABASE names (postgres by default); the caller passes the password, it is never in this file:
--
--   psql --set=ON_ERROR_STOP=1 --set=password="$POOLSCOPE_PG_PASSWORD" --dbname=postgres --file=monitoring-role.sql
--
-- To run it again is safe: it then takes back what an earlier version of this file granted.
--
-- What PostgreSQL enforces, whatever the role's sessions do (tests/pipeline/test_monitoring_role.py):
--   * It sees no statement of another role: neither text nor literals, client addresses nor wait events. It is no member
--     of pg_monitor or pg_read_all_stats, which show pg_stat_activity.query. In their place it calls one function.
--   * It has no privilege on any application's table, so it reads, changes and locks none. It reads and writes no file
--     of the server, and it cannot end or cancel another role's session.
--   * It has five connections at most (the receivers of one Collector use four), at most 64 MB of temporary files in
--     each, and cannot raise either. From PostgreSQL 16 on these may be the server's reserved_connections: set that to 5,
--     so that a server that applications have filled is still watched.
--
-- What PostgreSQL does not enforce:
--   * statement_timeout and the like are defaults against a mistake: every role may SET its own, as it may its password.
--     Whoever has the password can keep five connections busy, and hold back vacuum of the database it is connected to.
--   * What is granted to PUBLIC holds for this role too: to connect to every database, to read its catalogs (names,
--     the code of functions), to make temporary tables and large objects, to LISTEN; before PostgreSQL 15 also to create
--     tables in the schema public.
-- So leave POOLSCOPE_PG_DATABASE at a database without tables of applications, and let pg_hba.conf keep the role there
-- and to the Collector's address, above the lines for all:
--
--   hostssl  postgres  poolscope_monitor  192.0.2.10/32  scram-sha-256
--   host     all       poolscope_monitor  all            reject

DO $roles$
BEGIN
  IF to_regrole('poolscope_monitor') IS NULL THEN
    CREATE ROLE poolscope_monitor;
  END IF;
  -- Nobody logs in as this one. It sees the state of all sessions, and owns the function below and nothing else.
  IF to_regrole('poolscope_statistics') IS NULL THEN
    CREATE ROLE poolscope_statistics;
  END IF;
END
$roles$;

ALTER ROLE poolscope_statistics WITH NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
GRANT pg_read_all_stats TO poolscope_statistics;

ALTER ROLE poolscope_monitor WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  CONNECTION LIMIT 5 PASSWORD :'password';
DO $earlier$
BEGIN
  IF pg_has_role('poolscope_monitor', 'pg_read_all_stats', 'MEMBER') THEN
    REVOKE pg_read_all_stats FROM poolscope_monitor;
  END IF;
END
$earlier$;
DO $reserved$
BEGIN
  IF to_regrole('pg_use_reserved_connections') IS NOT NULL THEN
    GRANT pg_use_reserved_connections TO poolscope_monitor;
  END IF;
END
$reserved$;
-- What the role has set for itself goes.
ALTER ROLE poolscope_monitor RESET ALL;
-- This one it cannot change: only superusers may.
ALTER ROLE poolscope_monitor SET temp_file_limit = '64MB';
-- These are defaults.
ALTER ROLE poolscope_monitor SET default_transaction_read_only = on;
ALTER ROLE poolscope_monitor SET statement_timeout = '5s';
ALTER ROLE poolscope_monitor SET lock_timeout = '1s';
ALTER ROLE poolscope_monitor SET idle_in_transaction_session_timeout = '10s';

CREATE SCHEMA IF NOT EXISTS poolscope;
ALTER SCHEMA poolscope OWNER TO poolscope_statistics;
REVOKE ALL ON SCHEMA poolscope FROM PUBLIC;
GRANT USAGE ON SCHEMA poolscope TO poolscope_monitor;

-- What collector.yaml asks of pg_stat_activity: state, and since when. It runs with the rights of its owner, with a
-- search path that no caller can change, takes no argument, and returns no text that a client wrote but its name.
CREATE OR REPLACE FUNCTION poolscope.sessions()
  RETURNS TABLE (pid integer, backend_type text, datname name, application_name text, state text,
                 state_change timestamp with time zone)
  LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $sessions$
    SELECT a.pid, a.backend_type, a.datname, a.application_name, a.state, a.state_change
    FROM pg_catalog.pg_stat_activity AS a
  $sessions$;
ALTER FUNCTION poolscope.sessions() OWNER TO poolscope_statistics;
REVOKE ALL ON FUNCTION poolscope.sessions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION poolscope.sessions() TO poolscope_monitor;
