# A pull that is under way while what it stands on goes, or becomes another: it
# ends with an error that says which, and writes nothing into what has taken the
# place.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = accessreq_node('identity', conf => "accessreq.max_retries = 0\naccessreq.missing_limit = 0.2\n");
my $admin = new_session($node);
my $old = new_sandbox(rows => 2500);
my $new = new_sandbox(rows => 50, seed => 3);

sub value { return $admin->value(@_) }
sub rows { return value("SELECT count(*) FROM accessreq.request_status WHERE server = 'acme'") }
sub server_sql { my ($url, $client) = @_; return "CREATE SERVER acme FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '$url', api 'v2024', rate_limit '0', max_concurrency '1'); GRANT USAGE ON FOREIGN SERVER acme TO bob; CREATE USER MAPPING FOR bob SERVER acme OPTIONS (client_id '$client', client_secret 'sandbox-secret');" }

value('CREATE ROLE bob LOGIN; GRANT EXECUTE ON PROCEDURE accessreq.sync(name, boolean, boolean) TO bob; GRANT EXECUTE ON FUNCTION accessreq.start_sync, accessreq.stop_sync TO bob');

# A pull of the old tenant, in the middle: some pages are stored, more are to come.
my $bob;

sub begin
{
	$bob->quit if $bob;
	$bob = new_session($node, user => 'bob');
	value("DROP SERVER IF EXISTS acme CASCADE; DROP SERVER IF EXISTS acme2 CASCADE");
	value("SELECT accessreq.stop_sync(server) FROM accessreq.sync_job; SELECT count(*) FROM accessreq.sync_job, accessreq.forget(server)");
	value(server_sql($old->url, 'bob'));
	$old->no_faults;
	$old->admin('POST', 'latency', { ms => 700 });
	$bob->send("CALL accessreq.sync('acme', full_scan => true)");
	ok(poll_until('some pages', sub { my $n = rows(); $n > 0 && $n < 2000 }), 'a pull is under way');
	return;
}

# It ends, as it should, and soon.
sub ends
{
	my ($what, $state, $like) = @_;
	$old->admin('POST', 'latency', { ms => 0 });
	my $r = $bob->finish;

	is($r->{sqlstate}, $state, "$what: the pull ends") or diag($r->{err});
	like($r->{err}, $like, "$what: and says why");
	cmp_ok(rows(), '<', 2500, "$what: in the middle");
	return;
}

# ------------------------------------------------ another server of the same name

begin();
value('DROP SERVER acme CASCADE');
my $old_tenant = value("SELECT tenant FROM accessreq.sync_job WHERE server = 'acme'");
value(server_sql($new->url, 'othertenant'));
value("SELECT count(*) FROM accessreq.forget('acme')");
my $second = new_session($node, user => 'bob');
my $r = $second->run("CALL accessreq.sync('acme')");
is($r->{sqlstate}, '', 'the new server is pulled, at once') or diag($r->{err});
ends('DROP SERVER, CREATE SERVER, forget()', '42704', qr/could not go on pulling from server "acme": it was dropped since/);
is(rows(), '50', 'the rows are the new tenant\'s alone');
isnt(value("SELECT tenant FROM accessreq.sync_job WHERE server = 'acme'"), $old_tenant, 'the job is');
is(value("SELECT created_watermark = (SELECT max(created) FROM accessreq.request_status) FROM accessreq.sync_job WHERE server = 'acme'"), 't', 'its watermark too');
is(value("SELECT count(*) FROM accessreq.sync_run WHERE error IS NOT NULL"), '0', 'and no run of the old one is noted for it');
is(value("SELECT failures || ' ' || scan_failures FROM accessreq.sync_job WHERE server = 'acme'"), '0 0', 'nor a failure');
is($second->run("CALL accessreq.sync('acme', full_scan => true)")->{sqlstate}, '', 'the next scan is well');
is(rows(), '50', 'and finds the same');

# ---------------------------------------------- what else a pull stands on, one by one

for (
	[ 'DROP SERVER', 'DROP SERVER acme CASCADE', '42704', qr/it was dropped since/ ],
	[ 'RENAME', 'ALTER SERVER acme RENAME TO acme2', '55000', qr/it is "acme2" now; accessreq\.rename_server\(\) moves its rows/ ],
	[ 'DROP USER MAPPING', 'DROP USER MAPPING FOR bob SERVER acme', '42704', qr/no user mapping|its user mapping was dropped/ ],
	[ 'DROP and CREATE USER MAPPING', "DROP USER MAPPING FOR bob SERVER acme; CREATE USER MAPPING FOR bob SERVER acme OPTIONS (client_id 'x', client_secret 'sandbox-secret')", '42704', qr/its user mapping was dropped since/ ],
	[ 'REVOKE USAGE', 'REVOKE USAGE ON FOREIGN SERVER acme FROM bob', '42501', qr/permission denied for foreign server/ ],
	[ 'REVOKE EXECUTE', 'REVOKE EXECUTE ON PROCEDURE accessreq.sync(name, boolean, boolean) FROM bob', '42501', qr/role "bob" has no EXECUTE on accessreq\.sync\(name, boolean, boolean\) any more/ ],
	[ 'another owner', "UPDATE accessreq.sync_job SET owner = 'postgres', owner_oid = 10", '55000', qr/the job has become another role's/ ],
  )
{
	my ($what, $sql, $state, $like) = @$_;

	begin();
	value($sql);
	ends($what, $state, $like);
	value('GRANT EXECUTE ON PROCEDURE accessreq.sync(name, boolean, boolean) TO bob');
}

# ------------------------------------------------------------------ a rotation

begin();
value("ALTER USER MAPPING FOR bob SERVER acme OPTIONS (SET client_id 'rotated')");
$old->admin('POST', 'tokens/revoke');
$old->admin('POST', 'latency', { ms => 0 });
$r = $bob->finish;
is($r->{sqlstate}, '', 'a secret that is rotated does not end a pull') or diag($r->{err});
is(rows(), '2500', 'which comes to its end');
ok(scalar(grep { ($_->{client_id} // '') eq 'rotated' } $old->requests(qr/access-request-status/)), 'with the new one');

$_->quit for $bob, $second, $admin;
$node->stop;
done_testing();
