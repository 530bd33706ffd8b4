# What store.c does where somebody has altered the synced tables: they are
# ordinary tables, to which users add columns, triggers, policies and
# partitions, and which may be dropped and made again under a session that has
# looked at them.  Such a table is written correctly or refused with an error
# that says why; and whoever may put a trigger on one does not become its owner.
# Pages come from SQL, as in 020_store.pl.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StorePages;
use Test::More;

my $node = store_node('altered');

# Each subject has a database of its own.
sub new_database
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	prepare_database($node, $db);
	return;
}

sub sql { return $node->safe_psql(@_); }

# A page in a session of its own.  Counts: seen|added|changed|quarantined|replaced
sub page
{
	my ($db, @page) = @_;
	return sql($db, page_sql(@page));
}

sub page_error
{
	my ($db, @page) = @_;
	my (undef, undef, $stderr) =
	  $node->psql($db, "\\set VERBOSITY verbose\n" . page_sql(@page));
	return $stderr;
}

# A page in a session that stays.
sub page_in
{
	my ($session, @page) = @_;
	return $session->value(page_sql(@page));
}

# ---- forced row security, from within a REPEATABLE READ transaction

# Rows are then found by SQL.  It must see what others have committed since the
# transaction's snapshot, and what the transaction itself has stored.
new_database('snapshot');
sql('snapshot', q{
	CREATE ROLE keeper;
	GRANT USAGE ON SCHEMA accessreq TO keeper;
	ALTER TABLE accessreq.request_status ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY all_rows ON accessreq.request_status USING (true);
	ALTER TABLE accessreq.request_status OWNER TO keeper;
	ALTER TABLE accessreq.approval OWNER TO keeper;
	ALTER TABLE accessreq.phase OWNER TO keeper;
	ALTER TABLE accessreq.manual_work_item OWNER TO keeper;
	ALTER TABLE accessreq.quarantined_item OWNER TO keeper;
	ALTER TABLE accessreq.state_change OWNER TO keeper;
	ALTER TABLE accessreq.approval_change OWNER TO keeper;
});
my $session = new_session($node, db => 'snapshot');

$session->value('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
is(page('snapshot', 55, [ item('a', 'NEW') ]), '1|1|0|0|0', 'somebody else stores an item');
is($session->run(page_sql(60, [ item('a', 'OLD') ]))->{sqlstate},
	'40001', 'that an old snapshot does not see: a serialization failure');
$session->value('ROLLBACK');

$session->value('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
is(page_in($session, 61, [ item('a', 'ONE') ]), '1|0|1|0|0', 'a page in a transaction');
is(page_in($session, 62, [ item('a', 'TWO') ]), '1|0|1|0|0', 'the next sees its row');
is(page_in($session, 63, [ item('a', 'TWO'), item('b', 'TWO') ]),
	'2|1|0|0|0', 'and the third that of both');
$session->value('COMMIT');
is( sql('snapshot', 'SELECT account_activity_item_id, state FROM accessreq.request_status ORDER BY 1'),
	"a|TWO\nb|TWO", 'all is stored');
$session->quit;

# ---- columns of other types

# The lookup reads columns from C: a type that is stored in another way must be
# refused by name, one that is stored as text is must work.
new_database('types');
is(page('types', 1, [ item('a', 'ONE') ]), '1|1|0|0|0', 'the column as it was made');
sql('types', q{
	CREATE TYPE public.state AS ENUM ('ONE');
	DROP INDEX accessreq.request_status_state_created_idx, accessreq.request_status_open_idx;
	ALTER TABLE accessreq.request_status ALTER state TYPE public.state USING state::public.state;
});
like(page_error('types', 2, [ item('a', 'ONE') ]),
	qr/ERROR:  42804: column "state" of table "request_status" is of type state, not text/,
	'an enum is refused');
sql('types', 'ALTER TABLE accessreq.request_status ALTER state TYPE varchar(20)');
is(page('types', 3, [ item('a', 'ONE') ]), '1|0|0|0|0', 'varchar: unchanged');
is(page('types', 4, [ item('a', 'TWO') ]), '1|0|1|0|0', 'varchar: changed');
sql('types', 'ALTER TABLE accessreq.request_status ALTER account_activity_item_id TYPE name');
like(page_error('types', 5, [ item('a', 'TWO') ]),
	qr/ERROR:  42804: column "account_activity_item_id" of table "request_status" is of type name, not text/,
	'a key of type name, which has text\'s operators, is refused');

# ---- drop, re-create and add in one session

# What a session has kept, OIDs and plans, must not outlive the tables.
new_database('again');
my $one = item('a', 'ONE', approvals([ 1, 'PENDING' ]));
my @tables = tables_sql() =~ /^CREATE TABLE (accessreq\.\w+)/mg;
my $create = tables_sql();
$create =~ s/^CREATE SCHEMA accessreq;$//m;

$session = new_session($node, db => 'again');
is(page_in($session, 1, [$one]), '1|1|0|0|0', 'the first tables: new');
is(page_in($session, 2, [ item('a', 'TWO') ]), '1|0|1|0|0', 'changed');
$session->value('SET client_min_messages = warning; DROP TABLE ' . join(', ', @tables));
$session->value($create);
is(page_in($session, 3, [ $one, item('b', 'ONE') ]), '2|2|0|0|0', 'tables made again: new');
is(page_in($session, 4, [ item('a', 'TWO') ]), '1|0|1|0|0', 'changed');

# Temporary tables come first in the search_path, but not before the rows that
# the statements read by these names.
$session->value(q{
	CREATE TEMP TABLE added_request_status (a int);
	CREATE TEMP TABLE changed_request_status (a int);
	CREATE TEMP TABLE sizes (a int)
});
is( page_in($session, 5, [ item('a', 'THREE', approvals([ 1, 'PENDING' ])), item('c', 'ONE') ]),
	'2|1|1|0|0',
	'temporary tables by the names of the rows to be stored are not read');

# Columns of a user's own, named like the aliases in the statements.
$session->value(q{
	ALTER TABLE accessreq.request_status
		ADD r text DEFAULT 'x',
		ADD t int,
		ADD excluded text GENERATED ALWAYS AS (upper(state)) STORED
});
is(page_in($session, 6, [ item('a', 'four'), item('d', 'one') ]),
	'2|1|1|0|0', 'columns that a user has added are left alone');
is( $session->value("SELECT string_agg(account_activity_item_id || '=' || excluded, ' '
		ORDER BY account_activity_item_id) FROM accessreq.request_status"),
	'a=FOUR b=ONE c=ONE d=ONE', 'and one that is generated follows');
is($session->value('SELECT count(*) FROM accessreq.approval'), '0', 'no approval is left over');
is($session->value('SELECT count(*) FROM accessreq.quarantined_item'), '0', 'nobody is blamed');
$session->quit;

# ---- what a trigger's WHEN may do

# It is evaluated as the table's owner, whoever wrote it and whoever owns the
# trigger's function.  mallory may put triggers on the tables, but nothing of
# hers may run.
new_database('privileges');
sql('privileges', q{
	CREATE ROLE mallory;
	GRANT USAGE ON SCHEMA accessreq TO mallory;
	GRANT CREATE, USAGE ON SCHEMA public TO mallory;
	GRANT TRIGGER, SELECT ON accessreq.request_status, accessreq.approval TO mallory;
	SET ROLE mallory;
	CREATE FUNCTION public.evil(text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN RAISE WARNING 'EVIL as %', current_user; RETURN true; END$$;
	CREATE FUNCTION public.evil(text, text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN RAISE WARNING 'EVIL as %', current_user; RETURN true; END$$;
	CREATE DOMAIN public.evil_domain AS text CHECK (public.evil(VALUE));
	CREATE OPERATOR public.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = public.evil);
});

my %refused = (
	'a function' => q{public.evil(NEW.state)},
	'an operator' => q{NEW.state OPERATOR(public.===) 'x'},
	'a domain\'s constraint' => q{NEW.state::public.evil_domain IS NOT NULL},
	'a domain in an array' =>
	  q{CASE WHEN ARRAY[NEW.state]::public.evil_domain[] IS NULL THEN true ELSE false END},
	'a domain deep within' =>
	  q{NEW.state IS NULL OR coalesce(NEW.state::public.evil_domain::text, '') = 'x'},
	'a query in a string' =>
	  q{query_to_xml('SELECT public.evil(''x'')', true, true, '') IS NOT NULL},
	'a schema full of tables' => q{schema_to_xml('public', true, true, '') IS NOT NULL},
	'what is not immutable' => q{NEW.created > now()});
my $time = 0;
for my $what (sort keys %refused)
{
	sql('privileges', "
		SET ROLE mallory;
		CREATE TRIGGER evil BEFORE INSERT OR UPDATE ON accessreq.request_status
			FOR EACH ROW WHEN ($refused{$what})
			EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()");
	my $stderr = page_error('privileges', ++$time, [ item("a$time", 'ONE') ]);
	like($stderr,
		qr/ERROR:  42501: permission denied for trigger "evil" on table "accessreq\.request_status"/,
		"WHEN with $what is refused");
	unlike($stderr, qr/EVIL/, 'and not run');
	sql('privileges', 'DROP TRIGGER evil ON accessreq.request_status');
}

# What people write in WHEN must go on working.
my %accepted = (
	'rows' => q{OLD.* IS DISTINCT FROM NEW.*},
	'states' => q{OLD.state IS DISTINCT FROM NEW.state AND NEW.state IN ('ONE', 'TWO')},
	'patterns, arrays and JSON' =>
	  q{NEW.item_name LIKE 'x%' OR upper(NEW.state) = 'TWO' OR NEW.source_names[1] = 'a'
		OR (NEW.client_metadata ->> 'a') = 'b'},
	'times' => q{NEW.modified > OLD.modified AND cardinality(NEW.sod_policies) > 1});
sql('privileges', q{
	CREATE FUNCTION public.fine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'
});
for my $what (sort keys %accepted)
{
	sql('privileges', "
		CREATE TRIGGER fine BEFORE UPDATE ON accessreq.request_status
			FOR EACH ROW WHEN ($accepted{$what}) EXECUTE FUNCTION public.fine()");
	$time++;
	is(page('privileges', $time, [ item("b$time", 'ONE') ]), '1|1|0|0|0', "WHEN with $what: new");
	is(page('privileges', $time, [ item("b$time", 'TWO') ]), '1|0|1|0|0', 'changed');
	sql('privileges', 'DROP TRIGGER fine ON accessreq.request_status');
}

# ---- a partition whose trigger skips rows

# An update that wrote fewer rows than it was given is a concurrent change,
# unless a trigger kept it from them: also one that only the partition has.
new_database('partitions');
sql('partitions', 'DROP TABLE accessreq.request_status');
sql('partitions',
	columns_sql('request_status') . ' PARTITION BY HASH (server, account_activity_item_id)');
sql('partitions', q{
	CREATE TABLE accessreq.request_status_0 PARTITION OF accessreq.request_status
		FOR VALUES WITH (MODULUS 1, REMAINDER 0);
	CREATE FUNCTION public.skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER skip BEFORE UPDATE ON accessreq.request_status_0
		FOR EACH ROW EXECUTE FUNCTION public.skip();
});
is(page('partitions', 1, [ item('a', 'ONE') ]), '1|1|0|0|0', 'a new row');
is(page('partitions', 2, [ item('a', 'TWO') ]), '1|0|1|0|0', 'one whose update is skipped');
is(sql('partitions', 'SELECT state FROM accessreq.request_status'), 'ONE', 'stays as it was');

# ---- kept plans

# PostgreSQL would plan kept statements anew by the session's settings, here ones
# that forbid nested loops: when a table is analyzed, and when the session's
# first temporary table changes its search_path.  The plans must still be nested
# loops over the key's index.
new_database('plans');

# A session's temporary tables are in a schema that is left to the next session
# of its number.  Where that has to be made all plans are dropped, which is the
# easy case; so make them all beforehand.
sql('plans', q{
	SET allow_system_table_mods = on;
	DO $$
	BEGIN
		FOR i IN 0 .. current_setting('max_connections')::int LOOP
			EXECUTE format('CREATE SCHEMA pg_temp_%s', i);
			EXECUTE format('CREATE SCHEMA pg_toast_temp_%s', i);
		END LOOP;
	END $$;
});
my $count_schemas = 'SELECT count(*) FROM pg_namespace';
my $number_of_schemas = sql('plans', $count_schemas);

$session = new_session($node, db => 'plans');
$session->value(q{
	LOAD 'auto_explain';
	SET auto_explain.log_min_duration = 0;
	SET auto_explain.log_nested_statements = on;
	SET enable_nestloop = off;
	SET client_min_messages = warning;
	CALL bench.pull(2000, 250)
});

# The plans by which every n-th item of a pull is changed.
sub plans_of_pull
{
	my ($version, $n) = @_;
	$session->value('SET client_min_messages = log');
	my $plans = $session->run("CALL bench.pull(2000, 250, $version, $n)")->{err};
	$session->value('SET client_min_messages = warning');
	return $plans;
}

sub only_nested_loops
{
	my ($plans, $when) = @_;
	like($plans, qr/Nested Loop/, "plans $when: nested loops");
	unlike($plans, qr/Seq Scan|Hash Join|Merge Join/, 'and nothing else');
	return;
}

only_nested_loops(plans_of_pull(1, 2), 'of a table that has grown');
$session->value('ANALYZE accessreq.request_status, accessreq.approval, accessreq.phase');
only_nested_loops(plans_of_pull(2, 3), 'after ANALYZE');
$session->value('CREATE TEMP TABLE first (a int)');
only_nested_loops(plans_of_pull(3, 2), 'after a temporary table');
is($session->value($count_schemas), $number_of_schemas, 'whose schema was there');
$session->quit;

done_testing();
