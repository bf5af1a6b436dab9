-- The role with which the Collector monitors PostgreSQL: it sees statistics and no data.
-- Run this once per server as a superuser; the caller passes the password, it is never in this file:
--
--   psql --set=ON_ERROR_STOP=1 --set=password="$POOLSCOPE_PG_PASSWORD" --file=monitoring-role.sql
--
-- pg_read_all_stats shows the state of other roles' sessions in pg_stat_activity: without it the state is NULL, and
-- every count by state is too low. It reads no table. The receivers of one Collector hold four connections at most.
CREATE ROLE poolscope_monitor WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  CONNECTION LIMIT 5 PASSWORD :'password';
ALTER ROLE poolscope_monitor SET default_transaction_read_only = on;
ALTER ROLE poolscope_monitor SET statement_timeout = '5s';
GRANT pg_read_all_stats TO poolscope_monitor;
