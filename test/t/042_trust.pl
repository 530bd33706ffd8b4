# Whom the extension trusts with a secret, told by what it refuses: no byte of a
# request may reach a peer whose certificate is not accepted, and ca_file is the
# one word on what is.

use strict;
use warnings;

use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'the program openssl is not here' if system('openssl version > /dev/null 2>&1') != 0;

my $dir = $PostgreSQL::Test::Utils::tmp_check;

# The server would speak TLS 1.0, were it for the system's OpenSSL alone.
append_to_file("$dir/openssl.cnf", <<'CNF');
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = permissive
[permissive]
MinProtocol = TLSv1
CipherString = DEFAULT@SECLEVEL=0
CNF
my $node = do { local $ENV{OPENSSL_CONF} = "$dir/openssl.cnf"; accessreq_node('trust', conf => "accessreq.max_retries = 0\naccessreq.connect_timeout = 5min\naccessreq.request_timeout = 5min\n") };
my $session = new_session($node);
my $admin = new_session($node);
my $servers = 0;

my $ca = make_ca($dir);
my $other_ca = make_ca($dir, 'other_ca');
my $here = 'IP:127.0.0.1,DNS:localhost';
my @good = make_cert($dir, 'good', $here);
my @expired = make_cert($dir, 'expired', $here, expired => 1);
my @stranger = make_cert($dir, 'stranger', $here, ca => 'other_ca');
my @elsewhere = make_cert($dir, 'elsewhere', 'DNS:other.example,IP:127.0.0.2');

sub server_at
{
	my ($url, %o) = @_;
	my $name = 's' . ++$servers;

	add_server($node, $name, $url, options => \%o,
		mapping => { client_id => 'trusting', client_secret => 'Secret-of-trust' });
	return $name;
}

# openssl s_server with a certificate and its key
sub speaks { my ($cert, $key, @options) = @_; return new_tls_server('-cert', $cert, '-key', $key, @options) }
sub call { my ($server) = @_; return "SELECT accessreq.count_status(server => '$server')" }

# The peer gets the request, which shows that it would write down what it gets.
sub accepted
{
	my ($what, $tls, %o) = @_;
	my $before = length $tls->heard;

	$session->send(call(server_at($tls->url, %o)));
	ok(poll_until($what, sub { substr($tls->heard, $before) =~ /client_secret=Secret-of-trust/ }), "$what: accepted");
	$admin->value('SELECT pg_cancel_backend(' . $session->backend . ')');
	my $r = $session->finish;
	is($r->{sqlstate}, '57014', "$what: and waited for") or diag($r->{err} . $tls->heard);
	return;
}

# The peer gets nothing, and the error says why.
sub refused
{
	my ($what, $tls, $like, %o) = @_;
	my $before = length $tls->heard;
	my $server = server_at($tls->url, %o);
	my $r = $session->run(call($server));

	is($r->{sqlstate}, '08001', "$what: refused") or diag($r->{err});
	like($r->{err}, $like, "$what: says why");
	is($admin->value("SELECT string_agg(step || ' ' || ok, ', ') FROM accessreq.check('$server') WHERE step IN ('tls', 'token')"),
		'tls false', "$what: check() says so");
	unlike(substr($tls->heard, $before), qr/POST|GET|Secret-of-trust/, "$what: nothing was sent");
	return;
}

# ---------------------------------------------------------------- what ca_file says

my $good = speaks(@good);
accepted('a certificate of the CA', $good, ca_file => $ca);
refused('a CA that nobody named', $good, qr/certificate/);
refused('another CA', $good, qr/certificate/, ca_file => $other_ca);
refused('a certificate of another CA', speaks(@stranger), qr/certificate/, ca_file => $ca);
refused('an expired certificate', speaks(@expired), qr/expired/, ca_file => $ca);
refused('a certificate for another host', speaks(@elsewhere), qr/certificate/, ca_file => $ca);
refused('a self-signed certificate', speaks(make_ca($dir, 'self', $here), "$dir/self.key"), qr/self[- ]signed/, ca_file => $ca);

# ------------------------------------------------------------------- old versions

my $old = speaks(@good, '-tls1_1', '-cipher', 'ALL:@SECLEVEL=0');
(my $at) = $old->url =~ m{//(.*)};
SKIP:
{
	my $client = `OPENSSL_CONF='$dir/openssl.cnf' openssl s_client -connect $at -tls1_1 -CAfile '$ca' < /dev/null 2>&1`;

	skip("this OpenSSL does not speak TLS 1.1", 4) unless $client =~ /Verification: OK/;
	refused('TLS 1.1', $old, qr/TLS|SSL|handshake|protocol/i, ca_file => $ca);
}
accepted('TLS 1.2', speaks(@good, '-tls1_2'), ca_file => $ca);

# ------------------------------------------------------------- a file that changes

# What was learned of the CAs of before is not kept, a TLS session neither.
append_to_file("$dir/changing.pem", slurp_file($ca));
accepted('a CA that is there', $good, ca_file => "$dir/changing.pem");
my $before = length $good->heard;
open(my $f, '>', "$dir/changing.pem") or die $!;
print $f slurp_file($other_ca);
close $f;
my $r = $session->run(call("s$servers"));
is($r->{sqlstate}, '08001', 'a CA that was taken out: refused') or diag($r->{err});
unlike(substr($good->heard, $before), qr/POST|GET/, 'a CA that was taken out: nothing was sent');

# ------------------------------------------------------------ a proxy that speaks TLS

# A proxy that is spoken to over TLS is held to the same file.
refused('a proxy of another CA', speaks(@stranger), qr/certificate|proxy/i,
	ca_file => $ca, proxy => speaks(@stranger)->url);

# ---------------------------------------- a CA that the system's folder alone has

SKIP:
{
	my $folder = "$dir/certs";
	mkdir $folder;
	my $system_ca = make_ca($dir, 'system_ca');
	my @system = make_cert($dir, 'of_system', $here, ca => 'system_ca');
	chomp(my $hash = `openssl x509 -hash -noout -in '$system_ca'`);
	append_to_file("$folder/$hash.0", slurp_file($system_ca));
	append_to_file("$folder/ca-certificates.crt", slurp_file($other_ca));
	my $tls = speaks(@system);

	$_->quit for $session, $admin;
	$node->stop;
	my ($started, $why) = start_with_system_cas($node, $folder);
	unless ($started)
	{
		$node->start;
		$_ = new_session($node) for $session, $admin;
		diag("no namespaces of one's own can be had here: $why");
		skip('no mount namespace of its own can be had here', 6);
	}
	# pg_ctl has started it, and the test's own stop ends it
	$node->_update_pid(1);
	$_ = new_session($node) for $session, $admin;
	accepted("a CA of the system's folder", $tls);
	refused("a CA that the system's folder alone has", $tls, qr/certificate/, ca_file => $ca);
}

$_->quit for $session, $admin;
$node->stop;
done_testing();
