# The dashboard, in a real browser: script/dashboard makes the pages, and
# dashboards/html/test.mjs opens them in Chromium.

use strict;
use warnings;
use AccessReq;
use Cwd 'abs_path';
use File::Basename;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = abs_path(dirname(abs_path($0)) . '/../..');
my $html = "$root/dashboards/html";
BAIL_OUT('npm ci was not run in dashboards/html') unless -d "$html/node_modules";
my $out = "$PostgreSQL::Test::Utils::tmp_check/dashboard";
mkdir $out;

my $node = accessreq_node('dashboard');
# dates of now: a dashboard shows the last half year
my $sandbox = new_sandbox(rows => 4000, open => 12, reference => 'now');
my $admin = new_session($node);

sub page
{
	my ($name, @args) = @_;
	my ($stdout, $stderr) = ('', '');

	ok(IPC::Run::run([ "$root/script/dashboard", $node->connstr('postgres'), "$out/$name", @args ], '>', \$stdout, '2>', \$stderr), "script/dashboard makes $name") or diag($stderr);
	is($stdout, "$out/$name\n", 'and says where it lies');
	return slurp_file("$out/$name");
}

page('empty.html');
add_server($node, 'acme', $sandbox->url);
# names that would be more than names
my @open = grep { $_->{state} eq 'EXECUTING' } @{ $sandbox->dump };
my $nasty = '</script><script>window.injected = 1</script><img src="x" onerror="window.injected = 1">';
for my $i (0 .. 2)
{
	my $owner = { type => 'IDENTITY', id => 'nasty', name => $nasty };
	$sandbox->admin('POST', 'change', { id => $open[$_]{accountActivityItemId}, touch => JSON::PP::false(),
			set => { name => $nasty, approvalDetails => [ { approvalId => "n$_", status => 'PENDING', currentOwner => $owner, originalOwner => $owner } ],
				accessRequestPhases => [ { name => 'APPROVAL_PHASE', state => 'EXECUTING', started => '2024-01-01T00:00:00Z' } ] } }) for $i * 4 .. $i * 4 + 3;
}
$admin->value("CALL accessreq.sync('acme')");
my $full = page('full.html', 'acme');
is(() = $full =~ m{</script>}g, 3, 'a name does not end a script');
unlike($full, qr{\@\@[A-Z]+\@\@}, 'all parts are in it');
unlike($full, qr{(?:src|href)\s*=\s*"https?:}, 'and it loads nothing');
my ($data) = $full =~ m{id="data">(.*?)</script>}s;
is((grep { $_->{approver} eq $nasty } @{ decode_json($data)->{backlog} })[0]{waiting}, 12, 'the name is in the data as it is');
# a large tenant, of which half is open; and one whose figures need room
my $large = new_sandbox(rows => 40000, open => 50, seed => 9, reference => 'now');
add_server($node, 'large', $large->url);
$admin->value("CALL accessreq.sync('large')");
page('large.html', 'large');
(my $huge = slurp_file("$out/large.html")) =~ s{(id="data">)(.*?)(</script>)}{$1 . multiplied($2) . $3}se;
append_to_file("$out/huge.html", $huge);

# The same document with every count of things some hundred times as large.
sub multiplied
{
	my $d = decode_json($_[0]);

	$_ *= 137 for @{ $d->{tiles} }{qw(items open failed_week)};
	for my $list ([ open_by_age => 'items' ], [ backlog => 'waiting', 'forwarded' ], [ outcomes => qw(completed rejected cancelled terminated failed) ], [ failures => 'items' ], [ open_on_day => 'open' ])
	{
		my ($name, @fields) = @$list;

		for my $row (@{ $d->{$name} })
		{
			$row->{$_} *= 137 for @fields;
		}
	}
	return JSON::PP->new->utf8->encode($d) =~ s/</\\u003c/gr;
}

my ($stdout, $stderr) = ('', '');
ok(!IPC::Run::run([ "$root/script/dashboard", $node->connstr('nothing'), "$out/x.html" ], '>', \$stdout, '2>', \$stderr), 'a database that is not there is an error');

# What the browser says.
$ENV{HOME} = $out;
chdir $html or die "$html: $!";
IPC::Run::run([ 'node', 'test.mjs', "$out/full.html", "$out/empty.html", "$out/huge.html", $out ], '>', \$stdout, '2>', \$stderr, IPC::Run::timeout(2 * PATIENCE));
my @lines = $stdout =~ /^((?:not )?ok .*(?:\n#.*)?)$/mg;
cmp_ok(scalar(@lines), '>', 30, 'the browser has been through') or diag("$stdout $stderr");
for my $line (@lines)
{
	my ($bad, $name, $detail) = $line =~ /^(not )?ok (.*?)(?:\n(#.*))?$/;
	ok(!$bad, "browser: $name") or diag($detail);
}
done_testing();
