# What the TAP files share: nodes with accessreq, the sandbox tenant, raw
# listeners that misbehave in ways no HTTP server does, and psql sessions that
# can be left waiting.  Core modules and PostgreSQL's own alone.
#
# Everything that is started is ended in END, by its process id.

package AccessReq;

use strict;
use warnings;

use Cwd 'abs_path';
use Exporter 'import';
use File::Basename;
use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  PATIENCE accessreq_node add_server quote_sql poll_until new_session
  new_sandbox new_listener full_backlog answer_text hang_up read_request
  backend_waits document_blocks make_ca make_cert slurp_from start_with_stuck_dns dns_questions
  new_tls_server start_with_system_cas prompt_beside
);

# How long anything may take before a test gives up on it, in seconds: no machine
# is so busy, only a hang takes longer.
use constant PATIENCE => 300;

my %children;    # pid => 1: ours to end
my $main_pid = $$;

# Wait until a condition holds; what it returned, or false after the limit.
sub poll_until
{
	my ($what, $condition, $limit) = @_;
	my $end = time + ($limit || PATIENCE);

	for (;;)
	{
		my $result = $condition->();
		return $result if $result;
		last if time >= $end;
		sleep 0.01;
	}
	diag("gave up waiting for: $what");
	return 0;
}

# Is a thing as prompt as promised: done within so many ms of the same thing done
# beside it, in one of twenty tries, because a busy machine makes both slow, and
# not always both?  Both are subs that return ms.
sub prompt_beside
{
	my ($what, $within_ms, $thing, $beside) = @_;
	my @tries;

	for (1 .. 20)
	{
		my ($floor, $ms) = ($beside->(), $thing->());

		return ok(1, $what) if $ms <= $floor + $within_ms;
		push @tries, sprintf('%.0f beside %.0f', $ms, $floor);
	}
	return ok(0, $what) || diag("ms, of $within_ms more: @tries");
}

# The blocks of a language in a document of the project's, as they stand there.
sub document_blocks
{
	my ($path, $language) = @_;
	my $text = slurp_file(dirname(abs_path(__FILE__)) . "/../../$path");

	return $text =~ /^```$language\n(.*?)^```/msg;
}

sub quote_sql
{
	my ($text) = @_;

	$text =~ s/'/''/g;
	# a backslash is itself: standard_conforming_strings is on
	return "'$text'";
}

# ------------------------------------------------------------------- nodes

# A running server with the extension in database postgres.  Options: preload
# (default 1), conf (text), encoding (default UTF8), extension (default 1),
# start (default 1), install_path (as Cluster has it).
sub accessreq_node
{
	my ($name, %o) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, $o{install_path} ? (install_path => $o{install_path}) : ());

	$node->init(
		allows_streaming => $o{streaming} ? 1 : 0,
		extra => [
			'--encoding', $o{encoding} || 'UTF8',
			'--locale', 'C'
		]);
	$node->append_conf('postgresql.conf', <<CONF);
accessreq.allowed_hosts = '127.0.0.1, localhost, hung.example'
timezone = 'UTC'
log_statement = none
max_prepared_transactions = 2
CONF
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'accessreq'\n")
	  if $o{preload} // 1;
	$node->append_conf('postgresql.conf', $o{conf}) if $o{conf};
	return $node unless $o{start} // 1;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION accessreq')
	  if $o{extension} // 1;
	return $node;
}

# A server and a mapping for PUBLIC.  Options: db, api, options (hash of the
# server's), mapping (hash of the mapping's).
sub add_server
{
	my ($node, $name, $url, %o) = @_;
	my %server = (
		base_url => $url,
		api => $o{api} || 'v2024',
		rate_limit => 0,
		%{ $o{options} || {} });
	my $mapping = $o{mapping}
	  || { client_id => 'tester', client_secret => 'sandbox-secret' };
	my $list = sub {
		my ($h) = @_;
		return join ', ',
		  map { "$_ " . quote_sql($h->{$_}) } sort keys %$h;
	};

	$node->safe_psql(
		$o{db} || 'postgres',
		"CREATE SERVER $name FOREIGN DATA WRAPPER accessreq OPTIONS ("
		  . $list->(\%server)
		  . "); CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS ("
		  . $list->($mapping)
		  . ");");
	return;
}

# Does a backend wait for the network, in our code?
sub backend_waits
{
	my ($admin, $pid) = @_;

	return poll_until(
		"backend $pid to wait for the network",
		sub {
			$admin->value(
				"SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'active' AND wait_event_type = 'Extension'"
			) == 1;
		});
}

# ------------------------------------------------------------- a psql session

# Sessions that can be left waiting: send() and, later, finish().
sub new_session { return AccessReq::Session->new(@_) }
sub new_sandbox { return AccessReq::Sandbox->new(@_) }
sub new_listener { return AccessReq::Listener->new(@_) }
sub new_tls_server { return AccessReq::TlsServer->new(@_) }

# Start a program; returns its pid and handles to its input, output, error.
sub _spawn
{
	my (@command) = @_;

	pipe(my $in_r, my $in_w) or die "pipe: $!";
	pipe(my $out_r, my $out_w) or die "pipe: $!";
	pipe(my $err_r, my $err_w) or die "pipe: $!";
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<&', $in_r) && open(STDOUT, '>&', $out_w)
		  && open(STDERR, '>&', $err_w)
		  or POSIX::_exit(126);
		close $_ for $in_w, $out_r, $err_r, $in_r, $out_w, $err_w;
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	$children{$pid} = 1;
	close $_ for $in_r, $out_w, $err_w;
	$in_w->autoflush(1);
	return ($pid, $in_w, $out_r, $err_r);
}

sub _end
{
	my ($pid, $signal) = @_;

	return unless delete $children{$pid};
	kill $signal || 'TERM', $pid;
	my $end = time + 5;
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		kill 'KILL', $pid if time > $end;
		sleep 0.01;
	}
	return;
}

END
{
	if ($$ == $main_pid)
	{
		my $status = $?;

		_end($_, $children{$_} eq 'group' ? '-TERM' : 'TERM')
		  for keys %children;
		$? = $status;
	}
}

sub slurp_from
{
	my ($file, $offset) = @_;

	open(my $f, '<:raw', $file) or return '';
	seek($f, $offset || 0, 0);
	local $/;
	return <$f> // '';
}

# ------------------------------------------------------------- raw listeners

# An HTTP answer as bytes, after which the connection is not kept unless the
# headers say otherwise: a request sent over one that is about to be closed may
# be lost, and that has a test of its own.
sub answer_text
{
	my ($status, $body, %headers) = @_;
	my %h = (
		'Content-Type' => 'application/json',
		'Content-Length' => length $body,
		Connection => 'close',
		%headers);

	return join("\r\n",
		"HTTP/1.1 $status Whatever",
		map({ "$_: $h{$_}" } grep { defined $h{$_} } sort keys %h),
		'', $body);
}

# End a connection now, though the listener may not have closed its copy yet.
sub hang_up
{
	my ($socket) = @_;

	shutdown($socket, 2);
	return close $socket;
}

# Read one whole request from a socket; undef at its end.
sub read_request
{
	my ($socket, $buffer) = @_;
	my $text = '';

	$buffer ||= \my $own;
	$$buffer //= '';
	while ($$buffer !~ /\r\n\r\n/)
	{
		sysread($socket, $$buffer, 65536, length $$buffer) or return;
	}
	my $head = substr($$buffer, 0, index($$buffer, "\r\n\r\n") + 4);
	my ($length) = $head =~ /^content-length:\s*(\d+)/im;
	$length ||= 0;
	while (length($$buffer) < length($head) + $length)
	{
		sysread($socket, $$buffer, 65536, length $$buffer) or return;
	}
	my $request = substr($$buffer, 0, length($head) + $length, '');
	return $request;
}

# A port on which a connection is neither accepted nor refused: the backlog is
# full.  Returns the port and a handle that keeps it so.
sub full_backlog
{
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Listen => 1,
		ReuseAddr => 1) or die "listen: $!";
	my @hold = ($listener);

	listen($listener, 0) or die "listen: $!";
	for (1 .. 16)
	{
		my $client = IO::Socket::INET->new(
			PeerAddr => '127.0.0.1',
			PeerPort => $listener->sockport,
			Blocking => 0) or next;
		push @hold, $client;
		return ($listener->sockport, \@hold)
		  unless IO::Select->new($client)->can_write(0.3);
	}
	return;
}

# --------------------------------------------------- a name server that hangs

# A server in a mount and a network namespace of its own, with a resolv.conf
# that names a listener which takes questions and answers none.  Returns
# whether it has started, the listener's pid (the caller ends it), and why not.
sub start_with_stuck_dns
{
	my ($cluster) = @_;
	my $dir = $PostgreSQL::Test::Utils::tmp_check;
	my ($uid, $gid) = ($>, $) + 0);
	my $log = $cluster->logfile;
	my $data = $cluster->data_dir;
	my $port = $cluster->port;

	append_to_file("$dir/resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:2\n");
	append_to_file("$dir/namespace.pl", <<'PERL');
use strict; use warnings; use Socket;
my ($dir, $uid, $gid, @start) = @ARGV;
socket(my $s, AF_INET, SOCK_DGRAM, 0) or die "socket: $!";
# SIOCSIFFLAGS: lo up
ioctl($s, 0x8914, my $request = pack('a16 s x14', 'lo', 0x41)) or die "lo: $!";
system('mount', '--bind', "$dir/resolv.conf", '/etc/resolv.conf') == 0 or die "mount";
socket(my $dns, AF_INET, SOCK_DGRAM, 0) or die "socket: $!";
bind($dns, pack_sockaddr_in(53, inet_aton('127.0.0.1'))) or die "bind: $!";
my $pid = fork // die "fork: $!";
if ($pid == 0)
{
	$SIG{ALRM} = 'DEFAULT';
	alarm 300;
	open(STDOUT, '>', '/dev/null'); open(STDERR, '>', '/dev/null');
	open(my $log, '>>', "$dir/questions");
	while (defined recv($dns, my $question, 4096, 0)) { syswrite($log, '?'); }
	exit;
}
print "$pid\n";
# a server refuses to run as root, which we are in here
exec 'unshare', '--user', "--map-user=$uid", "--map-group=$gid", @start or die "exec: $!";
PERL
	my @start = ('pg_ctl', '-D', $data, '-l', $log, '-w', 'start');
	my $out = "$dir/namespace.out";
	my $status = system(
		"unshare --user --map-root-user -m -n perl '$dir/namespace.pl' '$dir' $uid $gid @start"
		  . " > '$out' 2> '$dir/namespace.err' < /dev/null");
	my ($pid) = slurp_from($out) =~ /^(\d+)$/m;

	return ($status == 0, $pid, slurp_from("$dir/namespace.err"));
}

# How many questions that name server has got.
sub dns_questions { return length slurp_from("$PostgreSQL::Test::Utils::tmp_check/questions") }

# ----------------------------------------------------------------------- TLS

sub _openssl
{
	my ($dir, @args) = @_;

	system("cd '$dir' && openssl @args >> '$dir/openssl.log' 2>&1") == 0
	  or die "openssl @args: see $dir/openssl.log";
	return;
}

# A private CA in a folder: NAME.pem, ca.pem unless it has another name; with a
# subjectAltName it is a server's certificate too, signed by itself.
sub make_ca
{
	my ($dir, $name, $san) = @_;

	$name //= 'ca';
	_openssl($dir, 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
		'-subj', "'/CN=Test $name'", '-keyout', "$name.key", '-out', "$name.pem",
		$san ? ('-addext', "'subjectAltName = $san'") : ());
	return "$dir/$name.pem";
}

# A certificate of it: NAME.pem and NAME.key, for a subjectAltName.  Options: ca
# (its name), expired.
sub make_cert
{
	my ($dir, $name, $san, %o) = @_;
	my $ca = $o{ca} // 'ca';

	open(my $f, '>', "$dir/$name.ext") or die "$dir/$name.ext: $!";
	print $f "subjectAltName = $san\n";
	close $f;
	_openssl($dir, 'req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$name",
		'-keyout', "$name.key", '-out', "$name.csr");
	# until 3.3 an end before the beginning is the one way to one that has ended,
	# later it is refused
	my @life = !$o{expired} ? ('-days', 2) :
	  `openssl x509 -help 2>&1` =~ /-not_after/ ? ('-not_before', '20200101000000Z', '-not_after', '20200102000000Z') :
	  ('-days', '-1');
	_openssl($dir, 'x509', '-req', '-in', "$name.csr", '-CA', "$ca.pem", '-CAkey',
		"$ca.key", '-CAcreateserial', @life, '-extfile', "$name.ext", '-out', "$name.pem");
	return ("$dir/$name.pem", "$dir/$name.key");
}

# A server in a mount namespace of its own, whose folder of the system's CAs is
# another.  Returns whether it has started, and why not.
sub start_with_system_cas
{
	my ($cluster, $folder) = @_;
	my $dir = $PostgreSQL::Test::Utils::tmp_check;
	my ($uid, $gid) = ($>, $) + 0);
	my $log = $cluster->logfile;
	my $data = $cluster->data_dir;
	# a server refuses to run as root, which we are in there
	my $script = "mount --bind '$folder' /etc/ssl/certs && "
	  . "exec unshare --user --map-user=$uid --map-group=$gid pg_ctl -D '$data' -l '$log' -w start";
	my $status = system('unshare', '--user', '--map-root-user', '-m', 'sh', '-c',
		"($script) > '$dir/mount.out' 2> '$dir/mount.err' < /dev/null");

	return ($status == 0, slurp_from("$dir/mount.err"));
}

# ==========================================================================
package AccessReq::Session;

use strict;
use warnings;

use IO::Select;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

# Options: db, user, setup (SQL).
sub new
{
	my ($class, $node, %o) = @_;
	local $ENV{PGAPPNAME} = $o{name} || 'tap';
	my ($pid, $in, $out, $err) = AccessReq::_spawn(
		'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-v', 'ON_ERROR_STOP=0',
		'-d', $node->connstr($o{db} || 'postgres') . ($o{user} ? " user=$o{user}" : ''),
		'-f', '-');
	my $self = bless {
		pid => $pid,
		in => $in,
		out => $out,
		err => $err,
		n => 0
	}, $class;

	$self->{backend} = $self->value('SELECT pg_backend_pid()');
	$self->run($o{setup}) if $o{setup};
	return $self;
}

sub backend { return $_[0]->{backend} }

# Send statements and do not wait.
sub send
{
	my ($self, $sql) = @_;
	my $n = ++$self->{n};

	$self->{out_text} = $self->{err_text} = '';
	$self->{sent} = time;
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$sql\n;\n\\echo done-$n-\n\\warn done-$n-\n";
	return;
}

# Take in what the session says; false at its end.
sub _read
{
	my ($self, $timeout) = @_;
	my %name = ($self->{out} => 'out_text', $self->{err} => 'err_text');
	my $select = IO::Select->new(grep { !$self->{"eof_$name{$_}"} }
		  ($self->{out}, $self->{err}));

	return 0 unless $select->count;
	for my $h ($select->can_read($timeout))
	{
		my $key = $name{$h};
		sysread($h, $self->{$key}, 65536, length $self->{$key})
		  or $self->{"eof_$key"} = 1;
	}
	return 1;
}

# What was said so far, without waiting for the end.
sub said
{
	my ($self) = @_;

	$self->_read(0);
	return $self->{err_text};
}

# Wait for the end: a hash of out, err, sqlstate (of the last error, '' for
# none), ms, ended (the session itself is gone) and late (gave up waiting).
sub finish
{
	my ($self, $limit) = @_;
	my $end = time + ($limit || AccessReq::PATIENCE);
	my $mark = "done-$self->{n}-\n";
	my %r = (ended => 0, late => 0);

	until ($self->{out_text} =~ /^\Q$mark\E/m && $self->{err_text} =~ /^\Q$mark\E/m)
	{
		if (time > $end)
		{
			$r{late} = 1;
			diag("gave up waiting for a session: $self->{out_text} $self->{err_text}");
			last;
		}
		unless ($self->_read(0.05))
		{
			$r{ended} = 1;
			last;
		}
	}
	$r{ms} = (time - $self->{sent}) * 1000;
	($r{out} = $self->{out_text}) =~ s/^\Q$mark\E//m;
	($r{err} = $self->{err_text}) =~ s/^\Q$mark\E//m;
	chomp $r{out};
	my @states = $r{err} =~ /(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5}):/g;
	$r{sqlstate} = @states ? $states[-1] : '';
	return \%r;
}

sub run
{
	my ($self, $sql, $limit) = @_;

	$self->send($sql);
	return $self->finish($limit);
}

# The output of statements that must not fail.
sub value
{
	my ($self, $sql) = @_;
	my $r = $self->run($sql);

	die "$sql\nfailed: $r->{err}" if $r->{sqlstate} || $r->{ended};
	return $r->{out};
}

sub quit
{
	my ($self) = @_;

	# its input may have been inherited by a listener, so that it sees no end
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "\n\\q\n";
	close $self->{in};
	my $end = time + 5;
	while (waitpid($self->{pid}, POSIX::WNOHANG()) == 0 && time < $end)
	{
		sleep 0.005;
	}
	delete $children{ $self->{pid} } unless kill 0, $self->{pid};
	AccessReq::_end($self->{pid}, 'KILL');
	return;
}

# ==========================================================================
package AccessReq::Sandbox;

use strict;
use warnings;

use HTTP::Tiny;
use JSON::PP ();
use JSON::XS;    # JSON::PP of newer Perls takes minutes for a dump

my $json = JSON::XS->new->utf8->allow_nonref;

# The sandbox's own options, as --name value pairs: (rows => 600, gzip => undef).
# "scheme" https with tls_cert and tls_key is seen by itself.
sub new
{
	my ($class, @options) = @_;
	my $program = $ENV{ACCESSREQ_SANDBOX}
	  or die "ACCESSREQ_SANDBOX does not name the sandbox's program\n";
	my %o = (rows => 600, seed => 7, rate => 0, pace => 0);
	my @args;

	while (@options)
	{
		my ($name, $value) = splice @options, 0, 2;
		$name =~ tr/_/-/;
		delete $o{$name};
		push @args, "--$name", defined $value ? $value : ();
	}
	push @args, map { ("--$_", $o{$_}) } sort keys %o;
	my ($pid, $in, $out, $err) =
	  AccessReq::_spawn($program, '--die-with-parent', @args);
	my $url = <$out>;
	defined $url or die "the sandbox did not start: " . <$err>;
	chomp $url;
	# nobody reads what it says, so it must not be able to wait for that
	return bless {
		pid => $pid,
		url => $url,
		out => $out,
		err => $err,
		http => HTTP::Tiny->new(
			verify_SSL => 0,
			keep_alive => 0,
			timeout => AccessReq::PATIENCE)
	}, $class;
}

sub url { return $_[0]->{url} }
sub port { return $_[0]->{url} =~ /:(\d+)/ ? $1 : die }

sub stop
{
	my ($self) = @_;

	AccessReq::_end($self->{pid});
	return;
}

# An admin call: the answer, decoded.
sub admin
{
	my ($self, $method, $path, $body) = @_;
	my $r = $self->{http}->request(
		$method,
		"$self->{url}/_sandbox/$path",
		defined $body ? { content => ref $body ? $json->encode($body) : $body } : {});

	$r->{success} or die "$method $path: $r->{status} $r->{content}";
	return $json->decode($r->{content});
}

# fault(hang => path => 'x', count => 2): see the sandbox's README.
sub fault
{
	my ($self, $kind, %o) = @_;

	return $self->admin('POST', 'fault', { kind => $kind, %o })->{id};
}

sub no_faults { return $_[0]->admin('DELETE', 'fault') }
sub stats { return $_[0]->admin('GET', 'stats') }
sub forget { return $_[0]->admin('DELETE', 'requests') }
sub dump { return $_[0]->admin('GET', 'dump') }

# What was asked; with a pattern, the entries whose "METHOD path?query" fits.
sub requests
{
	my ($self, $pattern) = @_;
	my $list = $self->admin('GET', 'requests');

	return grep {
		!defined $pattern
		  || ("$_->{method} $_->{path}" . (defined $_->{query} ? "?$_->{query}" : ''))
		  =~ $pattern
	} @$list;
}

# Wait until so many requests have come that fit.
sub await
{
	my ($self, $pattern, $n) = @_;

	return AccessReq::poll_until("$n requests like $pattern",
		sub { $self->requests($pattern) >= ($n || 1) });
}

# ==========================================================================
package AccessReq::Listener;

use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP;
use POSIX ();

my $lines = JSON::PP->new->latin1->canonical;
my $files = 0;

# A TCP listener on the loopback address.  The handler gets each connection in
# a process of its own: (socket, number of the connection, note), where note
# writes down a word and a text, to be read by noted().  Options: port.
sub new
{
	my ($class, $handler, %o) = @_;
	my $server = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => $o{port} || 0,
		Listen => 64,
		ReuseAddr => 1) or die "listen: $!";
	my $file = "$PostgreSQL::Test::Utils::tmp_check/listener_$$" . '_' . ++$files;

	open(my $log, '>>:raw', $file) or die "$file: $!";
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		setpgrp(0, 0);
		$SIG{CHLD} = 'IGNORE';
		$SIG{TERM} = 'DEFAULT';
		_serve($server, $handler, $log);
	}
	setpgrp($pid, $pid);
	$children{$pid} = 'group';
	return bless {
		pid => $pid,
		port => $server->sockport,
		file => $file
	}, $class;
}

sub _serve
{
	my ($server, $handler, $log) = @_;
	my $n = 0;

	for (;;)
	{
		my $socket = $server->accept or next;
		$n++;
		my $note = sub {
			syswrite($log, $lines->encode([ $n, @_ ]) . "\n");
		};
		$note->('accepted');
		my $pid = fork;
		if (defined $pid && $pid == 0)
		{
			close $server;
			$SIG{PIPE} = 'IGNORE';
			eval { $handler->($socket, $n, $note); 1 }
			  or $note->('died', "$@");
			POSIX::_exit(0);
		}
		close $socket;
	}
}

sub port { return $_[0]->{port} }
sub url { return "http://127.0.0.1:$_[0]->{port}" }

# What the handlers noted: [connection, word, text…]; with a word, of that.
sub noted
{
	my ($self, $word) = @_;
	my @all = map { $lines->decode($_) } split /\n/,
	  AccessReq::slurp_from($self->{file});

	return grep { !defined $word || $_->[1] eq $word } @all;
}

sub await
{
	my ($self, $word, $n) = @_;

	return AccessReq::poll_until("the listener's $word",
		sub { $self->noted($word) >= ($n || 1) });
}

sub stop
{
	my ($self) = @_;

	AccessReq::_end($self->{pid}, '-TERM');
	return;
}

# ==========================================================================
package AccessReq::TlsServer;

use strict;
use warnings;

# openssl s_server: it takes a connection and writes down what it can read; it
# never answers.  Arguments: its own options, certificate and key among them.
sub new
{
	my ($class, @options) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/tls_$$" . '_' . ++$files;

	pipe(my $in_r, my $in_w) or die "pipe: $!";
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<&', $in_r) && open(STDOUT, '>', $file) && open(STDERR, '>&', \*STDOUT)
		  or POSIX::_exit(126);
		close $in_w;
		exec { 'openssl' } 'openssl', 's_server', '-accept', '127.0.0.1:0', @options
		  or POSIX::_exit(127);
	}
	close $in_r;
	$children{$pid} = 1;
	# it ends with its input
	my $self = bless { pid => $pid, in => $in_w, file => $file }, $class;
	AccessReq::poll_until('openssl s_server',
		sub { $self->{port} = $1 if $self->heard =~ /^ACCEPT \S+:(\d+)$/m; $self->{port} })
	  or die $self->heard;
	return $self;
}

sub url { return "https://127.0.0.1:$_[0]->{port}" }
sub heard { return AccessReq::slurp_from($_[0]->{file}) }

sub stop
{
	my ($self) = @_;

	AccessReq::_end($self->{pid});
	return;
}

package AccessReq;
use POSIX ();

1;
