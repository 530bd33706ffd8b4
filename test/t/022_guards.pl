# What others may have put in the extension's way, and must not be run by it:
# triggers on the tables that it writes as their owner, operators in a schema
# that was there before CREATE EXTENSION.  And whose runs a pull ends and takes
# up, and what becomes of names that are not ASCII where the database is LATIN1.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = accessreq_node('guards', conf => "accessreq.max_retries = 0\n");
my $sandbox = new_sandbox(rows => 600);
my $admin = new_session($node);
my $session = new_session($node);
my $r;

sub pull { my ($server, $more) = @_; return "CALL accessreq.sync('$server'" . ($more // '') . ')' }

# ------------------------------------------------------ triggers of others

add_server($node, 'acme', $sandbox->url);
$admin->value(<<'SQL');
CREATE ROLE eve LOGIN;
GRANT USAGE ON SCHEMA accessreq TO eve;
GRANT USAGE, CREATE ON SCHEMA public TO eve;
SET ROLE eve;
CREATE FUNCTION public.evil() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN ALTER ROLE eve SUPERUSER; RETURN NULL; END$$;
RESET ROLE;
SQL
is($session->run(pull('acme'))->{sqlstate}, '', 'a pull');
$sandbox->admin('POST', 'add', { n => 1 });

# All of the schema's tables: one that is added to the extension, and not to
# the guard, fails here.
my @tables = split /\n/, $admin->value(
	"SELECT relname FROM pg_class WHERE relnamespace = 'accessreq'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1");
cmp_ok(scalar(@tables), '>=', 11, 'there are tables');

# The triggers are of statements: they fire without any row.
for my $table (@tables)
{
	my $runs = $admin->value('SELECT count(*) FROM accessreq.sync_run');

	$admin->value(<<SQL);
GRANT TRIGGER ON accessreq.$table TO eve;
SET ROLE eve;
CREATE TRIGGER evil AFTER INSERT OR UPDATE OR DELETE ON accessreq.$table
	FOR EACH STATEMENT EXECUTE FUNCTION public.evil();
RESET ROLE;
SQL
	$r = $session->run("CALL accessreq.sync('acme', full_scan => true)");
	is($r->{sqlstate}, '42501', "a trigger on $table: sync() is refused") or diag($r->{err});
	like($r->{err}, qr/permission denied for trigger "evil" on table "accessreq\.$table"/, 'for it');
	is($admin->value("SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'"), 'f', 'eve is who she was');
	is($admin->value('SELECT count(*) FROM accessreq.sync_run'), $runs, 'no run was begun');
	is($session->value("SELECT ok FROM accessreq.check('acme') WHERE step = 'origin'"), 't',
		'what only reads goes on');
	$admin->value("ALTER ROLE eve NOSUPERUSER; DROP TRIGGER evil ON accessreq.$table");
}

# refresh() stores a page and writes no run
my ($request) = map { $_->{accessRequestId} } grep { $_->{accessRequestId} } @{ $sandbox->dump };
my $refresh = "SELECT count(*) FROM accessreq.refresh(ARRAY['$request'], server => 'acme')";
$admin->value("DELETE FROM accessreq.request_status");
$admin->value(<<'SQL');
SET ROLE eve;
CREATE TRIGGER evil BEFORE INSERT ON accessreq.request_status
	FOR EACH ROW EXECUTE FUNCTION public.evil();
RESET ROLE;
SQL
is($session->run($refresh)->{sqlstate}, '42501', 'refresh() is refused');
$admin->value('DROP TRIGGER evil ON accessreq.request_status');
cmp_ok($session->value($refresh), '>=', 1, 'and works without');

# a superuser's function that makes SQL of arguments, which eve chooses
$admin->value(<<'SQL');
CREATE FUNCTION public.runs_its_argument() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN EXECUTE TG_ARGV[0]; RETURN NEW; END$$;
SET ROLE eve;
CREATE TRIGGER evil BEFORE INSERT ON accessreq.sync_run
	FOR EACH ROW EXECUTE FUNCTION public.runs_its_argument('ALTER ROLE eve SUPERUSER');
RESET ROLE;
SQL
$r = $session->run(pull('acme'));
is($r->{sqlstate}, '42501', 'a trigger with arguments: sync() is refused') or diag($r->{err});
like($r->{err}, qr/It has arguments/, 'with the reason');
is($admin->value("SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'"), 'f', 'and was not run');
$admin->value('DROP TRIGGER evil ON accessreq.sync_run');

# Triggers of those who may anyway go on working.
$admin->value(<<'SQL');
CREATE TABLE public.seen (t text);
CREATE FUNCTION public.fine() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN INSERT INTO public.seen VALUES (TG_TABLE_NAME); RETURN NULL; END$$;
CREATE TRIGGER fine AFTER INSERT OR UPDATE ON accessreq.sync_run FOR EACH ROW EXECUTE FUNCTION public.fine();
CREATE TRIGGER fine AFTER INSERT OR UPDATE ON accessreq.sync_job FOR EACH ROW EXECUTE FUNCTION public.fine();
SET ROLE eve;
CREATE TRIGGER evil BEFORE INSERT ON accessreq.sync_run FOR EACH ROW EXECUTE FUNCTION public.evil();
RESET ROLE;
ALTER TABLE accessreq.sync_run DISABLE TRIGGER evil;
SQL
$r = $session->run(pull('acme'));
is($r->{sqlstate}, '', "a superuser's trigger, and one that is disabled") or diag($r->{err});
is($admin->value('SELECT string_agg(DISTINCT t, \' \' ORDER BY t) FROM public.seen'),
	'sync_job sync_run', 'the former has run');
is($admin->value("SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'"), 'f', 'the latter has not');
$admin->value(<<'SQL');
DROP TRIGGER evil ON accessreq.sync_run;
DROP TRIGGER fine ON accessreq.sync_run;
DROP TRIGGER fine ON accessreq.sync_job;
SQL

# ------------------------------------- a schema that was there before

# CREATE EXTENSION runs as a superuser, in a schema of which eve may have
# been the maker.
sub new_database
{
	my ($db, $sql) = @_;

	$admin->value("CREATE DATABASE $db");
	$admin->value("GRANT CREATE ON DATABASE $db TO eve");
	$node->safe_psql($db, $sql);
	return new_session($node, db => $db);
}
my $operator = <<'SQL';
CREATE FUNCTION accessreq.evil(oid, regclass) RETURNS bool LANGUAGE plpgsql AS
$$BEGIN ALTER ROLE eve SUPERUSER; RETURN $1 OPERATOR(pg_catalog.=) $2::oid; END$$;
CREATE OPERATOR accessreq.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = accessreq.evil);
SQL
my $is_installed = "SELECT count(*) FROM pg_extension WHERE extname = 'accessreq'";

my $other = new_database('squatted', "SET ROLE eve; CREATE SCHEMA accessreq; $operator");
$r = $other->run('CREATE EXTENSION accessreq');
is($r->{sqlstate}, '42501', "in eve's schema: refused") or diag($r->{err});
like($r->{err}, qr/schema "accessreq" belongs to role "eve"/, 'says whose it is');
like($r->{err}, qr/HINT: .*ALTER SCHEMA accessreq OWNER TO CURRENT_USER/, 'and what to do');
is($other->value($is_installed), '0', 'nothing is installed');
is($other->value("SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'"), 'f', 'and nothing of hers was run');
# with her operator in it
$other->value('ALTER ROLE eve NOSUPERUSER; ALTER SCHEMA accessreq OWNER TO CURRENT_USER');
is($other->run('CREATE EXTENSION accessreq')->{sqlstate}, '', "taken from her: it is installed");
is($other->value("SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'"), 'f', 'and the operator not run');
is($other->value($is_installed), '1', 'it is');
$other->quit;

my %harmless = (
	"the installer's own schema" => 'CREATE SCHEMA accessreq',
	"another superuser's schema" => 'CREATE ROLE boss SUPERUSER; CREATE SCHEMA accessreq AUTHORIZATION boss');
my $n = 0;
for my $what (sort keys %harmless)
{
	$other = new_database('fine' . ++$n, $harmless{$what});
	$r = $other->run('CREATE EXTENSION accessreq');
	is($r->{sqlstate}, '', $what) or diag($r->{err});
	$other->quit;
}

# What the script says without qualifying it would be looked up in its schema:
# an operator there for every pair of the types that it compares must not be
# in what it makes.
$other = new_database('operators', <<'SQL');
CREATE SCHEMA accessreq;
CREATE FUNCTION accessreq.evil(anyelement, anyelement) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
DO $$
DECLARE op text; l text; r text;
BEGIN
	FOREACH op IN ARRAY '{=,<>,>,<}'::text[] LOOP
		FOREACH l IN ARRAY '{oid,regclass,name,text,varchar,int2,int4,int8,"\"char\""}'::text[] LOOP
			FOREACH r IN ARRAY '{oid,regclass,name,text,varchar,int2,int4,int8,"\"char\""}'::text[] LOOP
				IF op = '=' THEN
					EXECUTE format('CREATE FUNCTION accessreq.evil(%s, %s) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS ''BEGIN RAISE EXCEPTION ''''EVIL''''; END''', l, r);
				END IF;
				EXECUTE format('CREATE OPERATOR accessreq.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = accessreq.evil)', op, l, r);
			END LOOP;
		END LOOP;
	END LOOP;
END $$;
SQL
$r = $other->run('CREATE EXTENSION accessreq');
is($r->{sqlstate}, '', 'among operators for all types') or diag($r->{err});
is($other->value(<<'SQL'), '0', 'none of which it uses');
SELECT count(*) FROM pg_depend d JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND d.refobjid = o.oid
WHERE o.oprnamespace = 'accessreq'::regnamespace AND d.classid <> 'pg_operator'::regclass
SQL
$other->quit;

# ----------------------------------------------------- runs without an end

# joe pulls acme too, whose job is the superuser's.
$admin->value(<<'SQL');
CREATE ROLE joe LOGIN;
GRANT USAGE ON SCHEMA accessreq TO joe;
GRANT EXECUTE ON PROCEDURE accessreq.sync(name, boolean, boolean) TO joe;
GRANT USAGE ON FOREIGN SERVER acme TO joe;
SQL

# Terminate a pull of acme that hangs on its second page.
sub break_pull
{
	my ($user) = @_;
	my $s = new_session($node, $user ? (user => $user) : ());

	$admin->value('TRUNCATE accessreq.sync_run');
	$sandbox->forget;
	$sandbox->fault('hang', path => 'access-request-status', skip => 2);
	$s->send(pull('acme', ', full_scan => true'));
	poll_until('a page to be noted', sub { $admin->value('SELECT coalesce(max(pages), 0) FROM accessreq.sync_run') == 1 });
	$sandbox->await(qr/access-request-status/, 3);
	is($admin->value('SELECT pg_terminate_backend(' . $s->backend . ', 5000)'), 't', 'a pull is terminated');
	$s->finish;
	$s->quit;
	$sandbox->no_faults;
	$sandbox->forget;
	return;
}

# The runs there were.
sub went
{
	return $admin->value(
		"SELECT string_agg(concat_ws(' ', CASE owner WHEN 'joe' THEN 'joe' ELSE 'owner' END, coalesce(error, 'fine'), finished IS NOT NULL), ', ' ORDER BY run_id) FROM accessreq.sync_run");
}
my $joe = new_session($node, user => 'joe');

break_pull('joe');
is($session->run(pull('acme'))->{sqlstate}, '', "the owner's pull after another's that was broken off");
is(went(), 'joe interrupted t, owner fine t', 'ends it, and does not go on from it');

break_pull('joe');
is($joe->run(pull('acme'))->{sqlstate}, '', "the other's next pull");
is(went(), 'joe interrupted t, joe fine t', 'does so too');

break_pull();
is($joe->run(pull('acme'))->{sqlstate}, '', "another's pull after the owner's that was broken off");
is(went(), 'owner interrupted t, joe fine t', 'ends it');
$sandbox->forget;
is($session->run(pull('acme'))->{sqlstate}, '', "and the owner's next");
is(went(), 'owner interrupted t, joe fine t, owner fine t', 'is one more');

# Who waits is told of a process that lives.  What hangs is closed in the end,
# which a retry gets over.
break_pull('joe');
$session->run('SET accessreq.max_retries = 3');
$sandbox->fault('hang', path => 'access-request-status', skip => 2);
$session->send(pull('acme'));
$sandbox->await(qr/access-request-status/, 3);
$joe->send(pull('acme'));
poll_until('a notice', sub { $joe->said =~ /waiting for/ });
like($joe->said, qr/by process ${\ $session->backend} to end/, 'the one that pulls is waited for');
$sandbox->no_faults;
is($_->finish->{sqlstate}, '', 'and both end') for $session, $joe;
is($admin->value('SELECT count(*) FROM accessreq.sync_run WHERE finished IS NULL'), '0', 'no run is without an end');
$session->run('RESET accessreq.max_retries');
$joe->quit;

# ---------------------------------------------------------------- encodings

# A tenant called $name, with one item, that fails on the page after it.
my $u_umlaut = "\xc3\xbc";
sub tenant_called
{
	my ($name) = @_;

	return new_listener(
		sub {
			my ($socket, undef, $note) = @_;
			my $request = read_request($socket) // return;

			$note->('request', (split /\r\n/, $request)[0]);
			my $answer = $request =~ m{^POST /oauth/token}
			  ? answer_text(200, qq({"access_token":"head.body.tail","expires_in":700,"tenant_id":"$name"}))
			  : $request =~ /%20gt%20/ ? answer_text(500, '{}')
			  : answer_text(200, qq([{"accountActivityItemId":"b$u_umlaut","accessRequestId":"r","state":"EXECUTING"}]));
			syswrite($socket, $answer);
			hang_up($socket);
		});
}
for my $encoding ('LATIN1', 'UTF8', 'SQL_ASCII')
{
	my $db = 'enc_' . lc $encoding;
	my $muenster = tenant_called("M${u_umlaut}nster");
	my $muensing = tenant_called("M${u_umlaut}nsing");
	my $ue = $encoding eq 'LATIN1' ? 'fc' : 'c3bc';

	$admin->value("CREATE DATABASE $db TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
	$node->safe_psql($db, 'CREATE EXTENSION accessreq');
	add_server($node, 'enc', $muenster->url, db => $db);
	my $s = new_session($node, db => $db);
	$r = $s->run(pull('enc'));
	like($r->{sqlstate}, qr/^08/, "$encoding: a pull fails on its second page") or diag($r->{err});
	is($s->value("SELECT encode(tenant::bytea, 'hex') FROM accessreq.sync_job"),
		"4d${ue}6e73746572", "$encoding: the tenant's name is in the database's encoding");
	$r = $s->run(pull('enc'));
	like($r->{sqlstate}, qr/^08/, "$encoding: the next pull meets the same tenant") or diag($r->{err});
	my @asked = map { $_->[2] } grep { $_->[2] =~ /^GET/ } $muenster->noted('request');
	is(scalar(@asked), 6, "$encoding: a measurement and two pages each");
	like($asked[2], qr/b%C3%BC/, "$encoding: the second from behind the last id, in UTF-8");
	# another one, and in the database's own encoding in the error
	$s->value('ALTER SERVER enc OPTIONS (SET base_url ' . quote_sql($muensing->url) . ')');
	$s->value("SET client_encoding = 'UTF8'") if $encoding ne 'SQL_ASCII';
	$r = $s->run(pull('enc'));
	is($r->{sqlstate}, '55000', "$encoding: another tenant") or diag($r->{err});
	like($r->{err}, qr/tenant "M${u_umlaut}nster", the token is for "M${u_umlaut}nsing"/, "$encoding: says which");
	$s->quit;
	$_->stop for $muenster, $muensing;
}

$_->quit for $session, $admin;
$node->stop;
done_testing();
