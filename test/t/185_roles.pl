# doc/roles.md: its blocks give what it says, and no more.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @blocks = document_blocks('doc/roles.md', 'sql');
is(scalar(@blocks), 6, 'blocks: give and take for three roles');

my $node = accessreq_node('roles', conf => "log_min_messages = error\n");
my $sandbox = new_sandbox(rows => 800, open => 40);
my $admin = new_session($node);

sub value { return $admin->value(@_) }

# A block, with a secret that the sandbox takes; each role has a client id of its own.
sub paste
{
	my ($name, $block) = @_;

	$block =~ s/(MAPPING FOR (\w+) .*client_id ')…(', client_secret ')…'/$1$2$3sandbox-secret'/g;
	my $r = $admin->run($block);
	is($r->{sqlstate}, '', "$name: runs as it stands") or diag($r->{err});
	return;
}

# What a role gets to see when it tries.
sub as
{
	my ($role, $sql) = @_;
	my $r = $admin->run("SET ROLE $role; $sql");

	$admin->run('ROLLBACK');
	value('RESET ROLE');
	return $r;
}

sub allowed { my ($name, $role, $sql) = @_; my $r = as($role, $sql); return is($r->{sqlstate}, '', $name) || diag($r->{err}) }
sub denied { my ($name, $role, $sql) = @_; my $r = as($role, $sql); return is($r->{sqlstate}, '42501', $name) || diag($r->{err}) }

value("CREATE SERVER acme FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '" . $sandbox->url . "', api 'v2024', rate_limit '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (client_id 'postgres', client_secret 'sandbox-secret')");
value("CALL accessreq.sync('acme')");
value('ANALYZE');

# ---------------------------------------------------------------------------- a reader

paste('reader', $blocks[0]);
my @read = split /\n/, value("SELECT relname FROM pg_class WHERE relnamespace = 'accessreq'::regnamespace AND relkind IN ('r', 'v') AND relname NOT IN ('action', 'quarantined_item', 'missing_candidate', 'request_budget') ORDER BY 1");
cmp_ok(scalar(@read), '>', 25, 'tables and views');
allowed("reader: reads $_", 'bi', "SELECT * FROM accessreq.$_") for @read;
allowed('reader: the document of the dashboard', 'bi', 'SELECT accessreq.dashboard_data()');
denied("reader: not $_", 'bi', "SELECT * FROM accessreq.$_") for qw(action quarantined_item missing_candidate request_budget);
denied("reader: does not write $_", 'bi', "DELETE FROM accessreq.$_") for qw(request_status approval sync_job action);
$sandbox->forget;
my @calls = split /\n/, value(<<'SQL');
SELECT format('%s accessreq.%I(%s)', CASE prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, proname,
	(SELECT string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY n) FROM unnest(proargtypes) WITH ORDINALITY a (t, n)))
FROM pg_proc WHERE pronamespace = 'accessreq'::regnamespace AND prorettype <> 'fdw_handler'::regtype AND NOT has_function_privilege('public', oid, 'EXECUTE')
ORDER BY proname
SQL
cmp_ok(scalar(@calls), '>', 30, 'functions that call out, or act');
denied("reader: not $_", 'bi', $_) for @calls;
is(value("SELECT string_agg(proname, ' ' ORDER BY proname COLLATE \"C\") FROM pg_proc WHERE pronamespace = 'accessreq'::regnamespace AND has_function_privilege('bi', oid, 'EXECUTE')"),
	'asked_people asks_for check_enqueue dashboard_data explain_state grant_request is_open open_items origin parse_time prepare_ending requests_left resolve_server revoke_request state_label usable_servers validator worker',
	'reader: may execute nothing else');
is(scalar($sandbox->requests), 0, 'reader: calls nothing out');
is(as('bi', "SELECT count(*) || ' ' || count(umoptions) FROM pg_user_mappings")->{out}, value('SELECT count(*) FROM pg_user_mappings') . ' 0', 'reader: sees no secret');

# the view alone
value('CREATE ROLE view_only; GRANT SELECT ON accessreq.open_item TO view_only');
my $r = as('view_only', 'SELECT * FROM accessreq.open_item');
is($r->{sqlstate}, '42501', 'SELECT on a report alone is not enough');
like($r->{err}, qr/permission denied for table request_status/, 'in the words of the document');
like(value("SELECT obj_description('accessreq.open_item'::regclass)"), qr/Needs SELECT on request_status, approval and phase/, 'the view says what is needed');

# -------------------------------------------------------------------------- an operator

paste('operator', $blocks[2]);
my $open = "SELECT access_request_id FROM accessreq.request_status WHERE state = 'EXECUTING' AND cancelable AND access_request_id IS NOT NULL ORDER BY 1";
my ($one, $two, $three) = split /\n/, value("$open LIMIT 3");
is(as('access_operator', "SELECT string_agg(step || ': ' || hint, '; ') FROM accessreq.check() WHERE NOT ok AND step <> 'worker'")->{out}, '', 'operator: check() finds nothing wrong');
allowed('operator: sync', 'access_operator', "CALL accessreq.sync('acme')");
allowed('operator: refresh', 'access_operator', "SELECT * FROM accessreq.refresh(ARRAY['$one'])");
$r = as('access_operator', "SELECT accessreq.stop_sync('acme')");
is($r->{sqlstate}, '42501', "operator: another role's job is that role's");
like($r->{err}, qr/Its owner is role "postgres".*hand the job over: doc\/operations\.md/s, 'operator: and it is said what to do');
paste('operator: the job is handed over', (grep { /UPDATE accessreq\.sync_job SET owner/ } document_blocks('doc/operations.md', 'sql'))[0]);
allowed('operator: start_sync', 'access_operator', "SELECT accessreq.start_sync('acme')");
allowed('operator: hold_actions', 'access_operator', 'SELECT accessreq.hold_actions()');
my $id = value("SELECT accessreq.enqueue_cancel('$one', 'x', server => 'acme')");
is(as('access_operator', 'SELECT count(*) FROM accessreq.action')->{out}, '0', 'operator: does not see the actions of others');
is(as('access_operator', 'SELECT depth FROM accessreq.action_queue')->{out}, '1', 'operator: but how many they are');
is(as('access_operator', "SELECT accessreq.cancel_action($id)")->{sqlstate}, '42704', 'operator: does not cancel the action of another');
allowed('operator: release_actions', 'access_operator', 'SELECT accessreq.release_actions()');
allowed('operator: waits for it', 'postgres', "CALL accessreq.wait_for_action($id)");
allowed('operator: stop_sync', 'access_operator', "SELECT accessreq.stop_sync('acme')");
denied('operator: does not create', 'access_operator', "SELECT * FROM accessreq.create('{}')");
denied('operator: does not enqueue', 'access_operator', "SELECT accessreq.enqueue_cancel('$two', 'x')");
paste('operator: away', $blocks[3]);
is(value("SELECT count(*) FROM pg_roles WHERE rolname = 'access_operator'"), '0', 'operator: is gone');

# ------------------------------------------------------------------------------- a team

paste('team', $blocks[4]);
$sandbox->forget;
$id = as('carol', "SELECT access.cancel_request('$two', 'left the project')")->{out};
like($id, qr/^\d+$/, 'team: a member cancels');
ok(poll_until('it to be sent', sub { value("SELECT state FROM accessreq.action WHERE id = $id") eq 'done' }), 'team: and it is done');
is(value("SELECT owner || ', ' || (request ->> 'comment') FROM accessreq.action WHERE id = $id"), 'access_team, postgres: left the project', 'team: under the team\'s token, with who it was');
is(join(' ', map { $_->{client_id} // '' } $sandbox->requests(qr/^POST .*cancel/)), 'access_team', 'team: the tenant heard it from access_team');
denied('team: a member cannot call what the function calls', 'carol', "SELECT accessreq.enqueue_cancel('$three', 'x', server => 'acme')");
denied('team: nor read', 'carol', 'SELECT * FROM accessreq.request_status');
value('CREATE ROLE mallory LOGIN');
denied('team: others cannot', 'mallory', "SELECT access.cancel_request('$three', 'x')");
is(as('carol', 'SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL')->{out}, '0', 'team: a member does not see the secret');
value('CREATE ROLE bob LOGIN IN ROLE access_team');
my $bob = new_session($node, user => 'bob');
$r = $bob->run("SELECT accessreq.enqueue_cancel('$three', 'x', server => 'acme')");
is($r->{sqlstate}, '42704', 'a mapping is not inherited by the members of a group') or diag($r->{err});
$bob->quit;
is(as('access_team', "SELECT count(*) FROM accessreq.cancel_stale('1 day', 'x')")->{out} > 0, 1, 'team: a dry run of cancel_stale');
paste('team: away', $blocks[5]);
is(value("SELECT count(*) FROM pg_roles WHERE rolname = 'access_team'"), '0', 'team: is gone');

# ------------------------------------------------------- a mapping for PUBLIC; the reader goes

$r = $admin->run("CREATE USER MAPPING FOR PUBLIC SERVER acme OPTIONS (client_id 'everybody', client_secret 'sandbox-secret')");
is($r->{sqlstate}, '', 'a mapping for PUBLIC is made');
like($r->{err}, qr/WARNING:  01000: every role with USAGE on server "acme" acts with this user mapping for PUBLIC\nHINT:  Make it for one role/, 'with a warning');
value('GRANT USAGE ON FOREIGN SERVER acme TO mallory; GRANT EXECUTE ON FUNCTION accessreq.check TO mallory');
like(as('mallory', "SELECT detail || '. ' || hint FROM accessreq.check('acme') WHERE step = 'mapping'")->{out}, qr/^role "mallory" acts with that for PUBLIC, .* Make it for one role/, 'check() says so, too');
is(value("SELECT detail || coalesce(hint, '') FROM accessreq.check('acme') WHERE step = 'mapping'"), 'role "postgres" has one', 'where it is the role\'s own, it does not');
$r = $admin->run("BEGIN; CREATE ROLE nobody_yet; CREATE USER MAPPING FOR nobody_yet SERVER acme OPTIONS (client_id 'x', client_secret 'y'); CREATE FOREIGN DATA WRAPPER other; CREATE SERVER elsewhere FOREIGN DATA WRAPPER other; CREATE USER MAPPING FOR PUBLIC SERVER elsewhere; ROLLBACK");
unlike($r->{err}, qr/PUBLIC/, 'one for a role draws none, nor one of another wrapper\'s');
is($admin->run('CREATE USER MAPPING FOR PUBLIC SERVER nowhere')->{sqlstate}, '42704', 'of no server');
paste('reader: away', $blocks[1]);
is(value("SELECT count(*) FROM pg_roles WHERE rolname = 'access_reader'"), '0', 'reader: is gone');
denied('and its members read nothing', 'bi', 'SELECT * FROM accessreq.open_item');
done_testing();
