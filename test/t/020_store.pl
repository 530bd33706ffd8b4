# What store.c promises: what a page writes, what it leaves alone, and what an
# item that cannot be stored does to the others.  Without a network: pages come
# from SQL, through the module of test/bench.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StorePages;
use Test::More;

my $node = store_node('store');

sub sql { return $node->safe_psql('postgres', @_); }

# counts: seen|added|changed|quarantined|replaced
sub page { return sql(page_sql(@_)); }

sub page_error
{
	my (undef, undef, $stderr) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n" . page_sql(@_));
	return $stderr;
}

sub fingerprint
{
	return sql("SELECT 's', ctid, xmin, account_activity_item_id, 0 FROM accessreq.request_status
		UNION ALL SELECT 'a', ctid, xmin, account_activity_item_id, ordinal FROM accessreq.approval
		UNION ALL SELECT 'p', ctid, xmin, account_activity_item_id, ordinal FROM accessreq.phase
		ORDER BY 1, 4, 5");
}

sub states
{
	return sql("SELECT string_agg(account_activity_item_id || '=' || coalesce(state, '-'), ' '
		ORDER BY account_activity_item_id) FROM accessreq.request_status");
}

sub approval_states
{
	return sql("SELECT string_agg(format('%s.%s=%s', account_activity_item_id, ordinal, status), ' '
		ORDER BY account_activity_item_id, ordinal) FROM accessreq.approval");
}

sub quarantine
{
	return sql("SELECT string_agg(format('%s:%s:%s', account_activity_item_id, error_code, attempts), ' '
		ORDER BY account_activity_item_id, error_code) FROM accessreq.quarantined_item");
}

sub clear
{
	sql('TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase,'
		  . ' accessreq.manual_work_item, accessreq.quarantined_item');
	return;
}

sub wal_position { return sql('SELECT pg_current_wal_insert_lsn()'); }

prepare_database($node, 'postgres');

# ---- new, unchanged, changed

my @first = (
	item('a', 'EXECUTING', approvals([ 1, 'PENDING' ], [ 2, 'PENDING' ], [ 3, 'PENDING' ])),
	item('b', 'EXECUTING', approvals([ 4, 'PENDING' ])),
	item('c', 'CANCELLED',
		'"accessRequestPhases":[{"name":"SOD","state":"COMPLETED","started":"2026-01-02T03:04:05.123456Z"}]'
	));
is(page(10, \@first), '3|3|0|0|0', 'three new items');
is(states(), 'a=EXECUTING b=EXECUTING c=CANCELLED', 'their rows');
is(approval_states(), 'a.1=PENDING a.2=PENDING a.3=PENDING b.1=PENDING', 'their approvals');
is(sql("SELECT name, started AT TIME ZONE 'UTC' FROM accessreq.phase"),
	'SOD|2026-01-02 03:04:05.123456', 'their phases');
is( sql("SELECT DISTINCT changed_at = timestamptz '2026-01-01Z' + interval '10 s', first_seen_at = changed_at
		FROM accessreq.request_status"),
	't|t', 'times of a new row are when its request was sent');
is(sql("SELECT raw FROM accessreq.request_status WHERE account_activity_item_id = 'b'"),
	$first[1], 'raw is what was sent');

my $before = fingerprint();
my $lsn = wal_position();
is(page(20, \@first), '3|0|0|0|0', 'the same again');
is(fingerprint(), $before, 'touches no row');
is(sql("SELECT pg_current_wal_insert_lsn() - '$lsn'"), '0', 'and writes no WAL');

sql("UPDATE accessreq.approval SET pending_since = '2025-05-05Z'");
$before = sql("SELECT ctid FROM accessreq.approval WHERE account_activity_item_id = 'a' AND ordinal = 1");
my $row_b = sql("SELECT ctid, xmin FROM accessreq.request_status WHERE account_activity_item_id = 'b'");
is( page(
		30,
		[
			item('a', 'REJECTED', approvals([ 1, 'PENDING' ], [ 2, 'REJECTED' ])),
			$first[1], $first[2], item('d', 'ERROR')
		]),
	'4|1|1|0|0',
	'one changed, one new');
is(states(), 'a=REJECTED b=EXECUTING c=CANCELLED d=ERROR', 'its new state');
is(approval_states(), 'a.1=PENDING a.2=REJECTED b.1=PENDING', 'an approval is changed, the surplus one gone');
is( sql("SELECT ctid FROM accessreq.approval WHERE account_activity_item_id = 'a' AND ordinal = 1"),
	$before, 'an approval that is the same is not rewritten');
is( sql("SELECT count(*) FROM accessreq.approval WHERE pending_since = '2025-05-05Z'"),
	'2', 'pending_since is kept of what is pending still');
is(sql("SELECT ctid, xmin FROM accessreq.request_status WHERE account_activity_item_id = 'b'"),
	$row_b, 'the unchanged neighbour is not rewritten');
is( sql("SELECT extract(epoch FROM first_seen_at - '2026-01-01Z')::int,
			extract(epoch FROM changed_at - '2026-01-01Z')::int
		FROM accessreq.request_status WHERE account_activity_item_id = 'a'"),
	'10|30', 'first_seen_at stays, changed_at moves');
is(page(40, [ item('a', 'REJECTED') ]), '1|0|1|0|0', 'all approvals gone');
is(approval_states(), 'b.1=PENDING', 'all are deleted');

# ---- outcomes, as refresh() wants them

is( page(
		50,
		[ item('a', 'CANCELLED'), $first[1], item('e', 'EXECUTING') ],
		columns => "array_to_string(outcomes, ', ')"),
	'a ra REJECTED -> CANCELLED, b rb EXECUTING -> EXECUTING, e re - -> EXECUTING',
	'outcomes');

# ---- order and duplicates

is(page(45, [ item('a', 'EXECUTING') ]), '1|0|0|0|0', 'an older answer does not count');
is( page(45, [ item('a', 'EXECUTING') ], columns => 'outcomes[1]'),
	'a ra CANCELLED -> CANCELLED', 'and says so');
like(states(), qr/a=CANCELLED/, 'nor touch the row');
clear();
is(page(10, [ item('z', 'ONE'), item('y', 'ONE'), item('z', 'TWO') ]),
	'3|2|0|0|0', 'two versions in a page');
is(states(), 'y=ONE z=TWO', 'the later wins');
is(page(20, [ item('z', 'TWO'), item('z', 'THREE') ]), '2|0|1|0|0', 'also of a stored one');
is(states(), 'y=ONE z=THREE', 'the later wins again');
is(page(30, '[]'), '0|0|0|0|0', 'an empty page');

# ---- missing_since

sql("UPDATE accessreq.request_status SET missing_since = timestamptz '2026-01-01Z' + interval '40 s'");
is(page(35, [ item('y', 'ONE') ]), '1|0|0|0|0', 'an answer from before the mark');
is(sql('SELECT count(missing_since) FROM accessreq.request_status'), '2', 'leaves it');
is(page(50, [ item('y', 'ONE') ]), '1|0|0|0|0', 'an unchanged row that came back');
is( sql("SELECT account_activity_item_id, extract(epoch FROM changed_at - '2026-01-01Z')::int
		FROM accessreq.request_status WHERE missing_since IS NULL"),
	'y|10', 'loses its mark and is not changed');
is(page(50, [ item('z', 'FOUR') ]), '1|0|1|0|0', 'a changed row that came back');
is(sql('SELECT count(missing_since) FROM accessreq.request_status'), '0', 'loses it too');

# ---- keep_raw, U+0000

clear();
is(page(10, [ item('n', 'A\u0000B') ], noraw => 1), '1|1|0|0|1', 'a NUL is replaced');
is(sql("SELECT state = E'A\\uFFFDB', raw IS NULL FROM accessreq.request_status"),
	't|t', 'and raw is not kept where not wanted');

# ---- quarantine: what cannot be read

clear();
is( page(
		10,
		[
			item('g', 'OK'), item('h', 'OK', '"x":tru'), '{"state":"NO ID"}', '7',
			item('x' x 2000, 'LONG ID'), item('i', 'OK')
		]),
	'6|2|0|4|0',
	'bad items');
is(states(), 'g=OK i=OK', 'the others are stored');
is(quarantine(), ':22032:1 :22032:1 :22032:1 h:22032:1', 'bad ones are in quarantine');
is( sql("SELECT convert_from(item, 'UTF8'), run_id, error FROM accessreq.quarantined_item
		WHERE item LIKE '%NO ID%'"),
	'{"state":"NO ID"}|7|item has no accountActivityItemId',
	'with their bytes and the reason');
is(page(20, [ item('h', 'OK', '"x":tru') ]), '1|0|0|1|0', 'a bad item again');
is( sql("SELECT attempts, extract(epoch FROM first_seen_at - '2026-01-01Z')::int,
			extract(epoch FROM last_seen_at - '2026-01-01Z')::int
		FROM accessreq.quarantined_item WHERE account_activity_item_id = 'h'"),
	'2|10|20', 'counts an attempt');
is(page(30, [ item('h', 'OK', '"x":true') ]), '1|1|0|0|0', 'it is well now');
is(quarantine(), ':22032:1 :22032:1 :22032:1', 'and leaves quarantine');
is(page(40, [ item('j', 'OK', qq("accessRequestId":"r") ) ]), '1|1|0|0|0', 'a key twice is no harm');
is(page(40, [ qq({"accountActivityItemId":"k","accountActivityItemId":"l"}) ]),
	'1|1|0|0|0', 'nor is the id twice');
is(page(50, [ qq({"accountActivityItemId":"k","accountActivityItemId":"l"}) ]),
	'1|0|0|0|0', 'and it is found again');

# ---- quarantine: what the tables refuse

clear();
sql(q{
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.state = 'RAISE' THEN RAISE EXCEPTION 'no, not % für mich', NEW.account_activity_item_id; END IF;
		IF NEW.state = 'UNDEFINED' THEN PERFORM * FROM public.no_such_table; END IF;
		IF NEW.state = 'DEADLOCK' THEN RAISE SQLSTATE '40P01'; END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON accessreq.request_status
		FOR EACH ROW EXECUTE FUNCTION public.refuse();
	ALTER TABLE accessreq.approval ADD CHECK (status <> 'FORBIDDEN');
	CREATE INDEX ON accessreq.request_status (item_name);
});
is( page(
		10,
		[
			(map { item("g$_", 'OK', approvals([ $_, 'PENDING' ])) } 1 .. 30),
			item('r1', 'RAISE'), item('r2', 'OK', approvals([ 1, 'FORBIDDEN' ])),
			item('r3', 'UNDEFINED'), item('r4', 'BIG', '"name":"' . big() . '"')
		]),
	'34|30|0|4|0',
	'items that a trigger, a constraint or an index refuses');
is(quarantine(), 'r1:P0001:1 r2:23514:1 r3:42P01:1 r4:54000:1', 'are in quarantine');
is(sql("SELECT error FROM accessreq.quarantined_item WHERE account_activity_item_id = 'r1'"),
	'no, not r1 für mich', 'with the message');
is(sql('SELECT count(*), (SELECT count(*) FROM accessreq.approval) FROM accessreq.request_status'),
	'30|30', 'all others are stored, with children');
is(page(20, [ item('g1', 'RAISE'), item('g2', 'CHANGED'), item('g3', 'OK', approvals([ 3, 'PENDING' ])) ]),
	'3|0|1|1|0', 'an update that is refused');
is(sql("SELECT state FROM accessreq.request_status WHERE account_activity_item_id = 'g1'"),
	'OK', 'leaves the row as it was');
like(page_error(30, [ item('g4', 'NEVER'), item('g5', 'DEADLOCK') ]),
	qr/ERROR:  40P01/, 'what is not the item\'s fault is raised');
like(page_error(30, [ item('g4', 'NEVER'), item('g5', 'DEADLOCK'), item('g6', 'RAISE') ]),
	qr/ERROR:  40P01/, 'also from within the pieces');
is(sql("SELECT count(*) FROM accessreq.request_status WHERE state = 'NEVER'"),
	'0', 'with nothing of the page stored');
sql('DROP TRIGGER refuse ON accessreq.request_status');
is(page(40, [ item('r1', 'RAISE'), item('r3', 'UNDEFINED') ]), '2|2|0|0|0', 'tried again, they store');
is(quarantine(), 'g1:P0001:1 r2:23514:1 r4:54000:1', 'and leave quarantine');

# Not compressible, longer than a btree's key may be.
sub big
{
	my $seed = 42;
	return join '', map { $seed = ($seed * 1103515245 + 12345) % 2147483648; chr(35 + ($seed >> 8) % 56) } 1 .. 9000;
}

# ---- children that somebody left

clear();
page(10, [ item('o', 'OK', approvals([ 1, 'PENDING' ], [ 2, 'PENDING' ])) ]);
sql('DELETE FROM accessreq.request_status');
is(page(20, [ item('o', 'OK', approvals([ 1, 'APPROVED' ])), item('p', 'OK') ]),
	'2|2|0|0|0', 'a row that was deleted without its children');
is(approval_states(), 'o.1=APPROVED', 'is stored again, with its children');
is(quarantine(), '', 'and nobody is blamed');

# ---- triggers and identity

sql(q{
	CREATE ROLE keeper;
	CREATE ROLE mallory;
	CREATE ROLE caller;
	GRANT USAGE ON SCHEMA accessreq, bench TO PUBLIC;
	GRANT CREATE ON SCHEMA public TO mallory, keeper;
	GRANT TRIGGER ON accessreq.approval TO mallory;
	SET ROLE mallory;
	CREATE FUNCTION public.evil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER evil BEFORE INSERT ON accessreq.approval FOR EACH ROW EXECUTE FUNCTION public.evil();
	RESET ROLE;
	ALTER TABLE accessreq.request_status OWNER TO keeper;
	ALTER TABLE accessreq.approval OWNER TO keeper;
	ALTER TABLE accessreq.phase OWNER TO keeper;
	ALTER TABLE accessreq.manual_work_item OWNER TO keeper;
	ALTER TABLE accessreq.quarantined_item OWNER TO keeper;
	ALTER TABLE accessreq.state_change OWNER TO keeper;
	ALTER TABLE accessreq.approval_change OWNER TO keeper;
});
my $stderr = page_error(30, [ item('t', 'OK') ]);
like($stderr,
	qr/ERROR:  42501: permission denied for trigger "evil" on table "accessreq\.approval"/,
	'a trigger of a third party is refused');
like($stderr, qr/function public\.evil\(\) belongs to role "mallory"/, 'naming its function and owner');
is(page(30, [ item('p', 'OK') ]), '1|0|0|0|0', 'an unchanged page runs no trigger');
sql('ALTER TABLE accessreq.approval DISABLE TRIGGER evil');
is(page(30, [ item('t', 'OK') ]), '1|1|0|0|0', 'a disabled one does not matter');

sql(q{
	CREATE TABLE public.log (who name, path text);
	GRANT INSERT ON public.log TO keeper;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bench TO caller;
	SET ROLE keeper;
	CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN
			INSERT INTO public.log VALUES (current_user, current_setting('search_path') || ' ' || current_setting('enable_seqscan'));
			IF NEW.state = 'RAISE' THEN RAISE EXCEPTION 'no'; END IF;
			IF NEW.state = 'DEADLOCK' THEN RAISE SQLSTATE '40P01'; END IF;
			RETURN NULL;
		END$$;
	CREATE TRIGGER note AFTER INSERT ON accessreq.request_status FOR EACH ROW EXECUTE FUNCTION public.note();
});
is( sql("SET ROLE caller;\n" . page_sql(40, [ item('u', 'OK') ])
		  . ";\nSELECT current_user, current_setting('search_path')"),
	"1|1|0|0|0\ncaller|\"\$user\", public", 'anybody may call, and is himself again afterwards');
is(sql('SELECT * FROM public.log'), 'keeper|pg_catalog, pg_temp on', 'tables are written as their owner');
is( sql("SET ROLE caller;\n" . page_sql(40, [ item('v', 'RAISE') ]) . ";\nSELECT current_user"),
	"1|0|0|1|0\ncaller", 'also where an item fails');
my ($rc, $stdout) = $node->psql('postgres',
		"SET ROLE caller;\nBEGIN;\nSAVEPOINT s;\n"
	  . page_sql(40, [ item('w', 'DEADLOCK') ])
	  . ";\nROLLBACK TO s;\nSELECT current_user, current_setting('search_path');\n",
	on_error_stop => 0);
is($stdout, 'caller|"$user", public', 'and where the page does');
sql('DROP TRIGGER note ON accessreq.request_status');

sql('CREATE FUNCTION public.nested() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM '
	  . (page_sql(50, [ item('x2', 'OK') ]) =~ s/^SELECT//r) . '; RETURN NULL; END$$;'
	  . 'GRANT CREATE, USAGE ON SCHEMA public TO keeper; ALTER FUNCTION public.nested() OWNER TO keeper;'
	  . 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bench TO PUBLIC;'
	  . 'CREATE TRIGGER nested AFTER INSERT ON accessreq.request_status FOR EACH ROW EXECUTE FUNCTION public.nested()');
like(page_error(50, [ item('x1', 'OK') ]), qr/ERROR:  55006/, 'a trigger that stores is refused');
sql('DROP TRIGGER nested ON accessreq.request_status');
is(page(50, [ item('x1', 'OK') ]), '1|1|0|0|0', 'and the next page is not');

# ---- locks, snapshots

like(page_error(50, [ item('u', 'OK') ], nolock => 1),
	qr/ERROR:  XX000: page lock of server "acme" is not held/, 'the page lock is asked for');
# another session commits the row after this one has taken its snapshot
my $newer = page_sql(55, [ item('rr', 'NEW') ]) =~ s/\\/\\\\/gr;
my $connstr = $node->connstr('postgres');
(undef, undef, $stderr) = $node->psql(
	'postgres', "BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 1;
\\! psql -X -q -d '$connstr' -c \"$newer\" > /dev/null
\\set VERBOSITY verbose
" . page_sql(60, [ item('rr', 'OLD'), item('rs', 'OLD') ]) . ";
ROLLBACK;", on_error_stop => 0);
like($stderr, qr/ERROR:  40001/, 'a row that an old snapshot does not see is a serialization failure');
like(states(), qr/rr=NEW/, 'of a row that is there');
is(sql("SELECT count(*) FROM accessreq.quarantined_item WHERE account_activity_item_id = 'rr'"),
	'0', 'and nobody\'s fault');

# ---- tables that are not plain

clear();
sql('ALTER TABLE accessreq.request_status ENABLE ROW LEVEL SECURITY;
	 ALTER TABLE accessreq.request_status FORCE ROW LEVEL SECURITY;
	 CREATE POLICY all_rows ON accessreq.request_status USING (true)');
is(page(10, \@first), '3|3|0|0|0', 'row security for the owner too: new');
$before = fingerprint();
is(page(20, \@first), '3|0|0|0|0', 'unchanged');
is(fingerprint(), $before, 'no row touched');
is(page(20, [ item('a', 'CHANGED') ]), '1|0|1|0|0', 'changed');

sql('DROP TABLE accessreq.request_status, accessreq.approval');
sql(columns_sql($_) . ' PARTITION BY HASH (server, account_activity_item_id)')
  for qw(request_status approval);
sql("CREATE TABLE accessreq.${_}_0 PARTITION OF accessreq.$_ FOR VALUES WITH (MODULUS 2, REMAINDER 0);
	 CREATE TABLE accessreq.${_}_1 PARTITION OF accessreq.$_ FOR VALUES WITH (MODULUS 2, REMAINDER 1);
	 ALTER TABLE accessreq.$_ OWNER TO keeper")
  for qw(request_status approval);
clear();
is(page(10, \@first), '3|3|0|0|0', 'partitioned tables: new');
$before = fingerprint();
is(page(20, \@first), '3|0|0|0|0', 'unchanged');
is(fingerprint(), $before, 'no row touched');
is(page(20, [ item('a', 'CHANGED', approvals([ 1, 'APPROVED' ])), item('d', 'NEW') ]),
	'2|1|1|0|0', 'changed and new');
is(approval_states(), 'a.1=APPROVED b.1=PENDING', 'with children');
is(page(25, [ '{}', item('d', 'NEW'), item('d2', 'NEW'), 'null' ]), '4|1|0|2|0', 'and bad ones');
sql('GRANT TRIGGER ON accessreq.approval_0 TO mallory; SET ROLE mallory;
	 CREATE TRIGGER evil BEFORE INSERT ON accessreq.approval_0 FOR EACH ROW EXECUTE FUNCTION public.evil()');
like(page_error(30, [ item('t', 'OK') ]),
	qr/ERROR:  42501: permission denied for trigger "evil" on table "accessreq\.approval_0"/,
	'a partition\'s trigger is seen');

# ---- other encodings

my $unicode = 'Zoë';
my @texts = (
	item('1', 'OK', qq("name":"$unicode")),
	item('2', 'OK', '"name":"Zo\u00eb"'),
	item('3', 'OK', qq("name":"中")),
	item('4', 'OK', '"unknown":"\u4e2d"'),
	item('ü', 'OK'));
for my $encoding (qw(LATIN1 SQL_ASCII))
{
	my $db = lc $encoding;
	sql("CREATE DATABASE $db ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	prepare_database($node, $db);
	is( $node->safe_psql($db, page_sql(10, \@texts)),
		$encoding eq 'LATIN1' ? '5|3|0|2|0' : '5|5|0|0|0',
		"$encoding: what can be stored");
	is( $node->safe_psql($db, page_sql(20, \@texts)),
		$encoding eq 'LATIN1' ? '5|0|0|2|0' : '5|0|0|0|0',
		"$encoding: and is found again");
	my $convert = $encoding eq 'LATIN1' ? "convert_to(%s, 'UTF8')" : "%s::bytea";
	is( $node->safe_psql(
			$db,
			sprintf(
				"SELECT string_agg(encode($convert, 'hex'), ' '),
					string_agg(encode($convert, 'hex'), ' ')
				FROM accessreq.request_status WHERE account_activity_item_id IN ('1', '2')",
				'item_name', "(raw ->> 'name')")),
		'5a6fc3ab 5a6fc3ab|5a6fc3ab 5a6fc3ab',
		"$encoding: names, from raw too");
	is( $node->safe_psql($db,
			"SELECT string_agg(account_activity_item_id || ':' || error_code || ':' || attempts, ' ' ORDER BY 1)
			FROM accessreq.quarantined_item"),
		$encoding eq 'LATIN1' ? '3:22P05:2 4:22P05:2' : '',
		"$encoding: what cannot be converted");
}

# ---- memory

sql('CREATE DATABASE memory');
prepare_database($node, 'memory');
my $growth = $node->safe_psql('memory', q{
	CALL bench.pull(1000, 250);
	CALL bench.pull(2000, 250);
	CALL bench.pull(2000, 250, 1, 3);
	CALL bench.pull(2000, 250);
	SELECT bench.memory() AS before \gset
	CALL bench.pull(10000, 250);
	CALL bench.pull(10000, 250, 1, 3);
	CALL bench.pull(10000, 250);
	SELECT bench.memory() - :before;
});
cmp_ok($growth, '<', 256 * 1024, "no growth over 40,000 items ($growth bytes)");

done_testing();
