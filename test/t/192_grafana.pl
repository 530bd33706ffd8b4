# dashboards/grafana/accessreq.json: every query in it is run, as the reader of
# doc/roles.md, with Grafana's macros replaced as its PostgreSQL data source does.
# Grafana itself is not here.

use strict;
use warnings;
use AccessReq;
use Cwd 'abs_path';
use File::Basename;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $file = dirname(abs_path($0)) . '/../../dashboards/grafana/accessreq.json';
my $dashboard = decode_json(slurp_file($file));
my $node = accessreq_node('grafana');
my $sandbox = new_sandbox(rows => 4000, open => 20, reference => 'now');
my $admin = new_session($node);

sub value { return $admin->value(@_) }

my ($reader) = document_blocks('doc/roles.md', 'sql');
value($reader);
my $bi = new_session($node, user => 'bi');

# As the data source does: a filter is a BETWEEN of UTC times, a variable of several
# values a list of literals, and All what the variable says for it, as it stands.
sub macros
{
	my ($sql, $server) = @_;

	$server //= "'acme','it''s another'";

	$sql =~ s/\$__timeFilter\(([^()]*(?:\([^()]*\)[^()]*)*)\)/$1 BETWEEN '2020-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'/g;
	$sql =~ s/\$server\b/$server/g;
	return $sql;
}

sub rows_of
{
	my ($sql, $server) = @_;
	my $r = $bi->run('SELECT coalesce(json_agg(q), \'[]\') FROM (' . macros($sql, $server) . ') q');

	return (decode_json($r->{out} || '[]'), $r);
}

my %variable = map { $_->{name} => $_ } @{ $dashboard->{templating}{list} };
is_deeply([ sort keys %variable ], [ 'datasource', 'server' ], 'variables');
my @panels = @{ $dashboard->{panels} };
is(scalar(@panels), 11, 'panels');
my %ids = map { $_->{id} => 1 } @panels;
is(scalar(keys %ids), 11, 'each has an id of its own');
my %taken;
for my $p (@panels)
{
	my $g = $p->{gridPos};

	for my $x ($g->{x} .. $g->{x} + $g->{w} - 1)
	{
		$taken{"$x,$_"}++ for $g->{y} .. $g->{y} + $g->{h} - 1;
	}
	ok($g->{x} + $g->{w} <= 24, "$p->{title}: fits in");
}
is(scalar(grep { $_ > 1 } values %taken), 0, 'none covers another');
# what is left of Grafana's own language after the macros would be an error
for my $p (@panels)
{
	is(scalar(@{ $p->{targets} }), 1, "$p->{title}: a query");
	unlike(macros($p->{targets}[0]{rawSql}), qr/\$/, "$p->{title}: no other macro");
	my (undef, $r) = rows_of($p->{targets}[0]{rawSql}, $variable{server}{allValue});
	is($r->{sqlstate}, '', "$p->{title}: of an empty database") or diag($r->{err});
}

add_server($node, 'acme', $sandbox->url);
add_server($node, 'other', $sandbox->url);
value("CALL accessreq.sync('acme')");
value("CALL accessreq.sync('other')");
is($bi->value($variable{server}{query}), "acme\nother", 'the variable lists the servers');
my %rows;
for my $p (@panels)
{
	my $query = $p->{targets}[0];
	my ($rows, $r) = rows_of($query->{rawSql});

	is($r->{sqlstate}, '', "$p->{title}: runs") or diag($r->{err});
	cmp_ok(scalar(@$rows), '>', 0, "$p->{title}: has rows");
	my %named = map { $_ => 1 } keys %{ $rows->[0] };
	ok($named{ $_->{matcher}{options} }, "$p->{title}: has a column $_->{matcher}{options}") for @{ $p->{fieldConfig}{overrides} };
	ok($named{ $p->{options}{xField} }, "$p->{title}: has a column for its axis") if $p->{type} eq 'barchart';
	if ($query->{format} eq 'time_series')
	{
		my $times = join ' ', map { $_->{time} } @$rows;

		is($times, join(' ', sort map { $_->{time} } @$rows), "$p->{title}: goes by time");
		is($bi->value('SELECT DISTINCT pg_typeof(time) FROM (' . macros($query->{rawSql}) . ') q'), 'timestamp with time zone', "$p->{title}: times are");
	}
	$rows{ $p->{title} } = $rows;
}
my $data = decode_json($bi->value("SELECT accessreq.dashboard_data('acme')"));
is($rows{Open}[0]{open}, $data->{tiles}{open}, 'open: as in the page, of the chosen server alone');
is(sprintf('%.2f', $rows{'Oldest open'}[0]{oldest}), sprintf('%.2f', $data->{tiles}{oldest_days}), 'oldest: as in the page');
is($rows{'Failed in 7 days'}[0]{failed}, $data->{tiles}{failed_week}, 'failed: as in the page');
is((rows_of($panels[0]{targets}[0]{rawSql}, $variable{server}{allValue}))[0][0]{open}, value('SELECT count(*) FROM accessreq.open_item'), 'open: of all servers');
my $sum = 0;
for my $row (@{ $rows{'Open by age and item type'} })
{
	$sum += $row->{$_} for 'Access profile', 'Role', 'Entitlement', 'Other';
}
is($sum, value("SELECT count(*) FROM accessreq.open_item WHERE created IS NOT NULL AND server = 'acme'"), 'by age: all of them');
is($rows{'Who sits on approvals'}[0]{waiting}, $data->{backlog}[0]{waiting}, 'approvers: as in the page');
is($rows{'Open at the end of each day'}[-1]{open}, $data->{open_on_day}[-1]{open}, 'open today: as in the page');
is(scalar(@{ $rows{'What is stuck'} }), value("SELECT least(count(*), 500) FROM accessreq.stuck_item WHERE server = 'acme'"), 'stuck: as many as it shows');
$bi->quit;
done_testing();
