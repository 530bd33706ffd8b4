/*
 * server.c
 *
 * Connections, by libmicrohttpd in one thread: requests come in whole, wait
 * out the latency while their connection is suspended, and their answers go
 * out as they are or as a fault wants them.  A page is sent from the rows'
 * own bytes, which its reference counts keep alive.
 */
#include "sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <zlib.h>

#define MAX_BODY (16 * 1024 * 1024)
#define FOREVER INT64_MAX

typedef enum Stage
{
	STAGE_HEADERS,				/* not looked at yet */
	STAGE_BODY,					/* its body is coming in */
	STAGE_READY,				/* waited out the latency: to be worked on */
	STAGE_SEND					/* the answer is made */
} Stage;

/* A request, its answer and what the connection is waiting for. */
typedef struct Exchange
{
	Request		request;
	Answer		answer;
	struct MHD_Connection *connection;
	Stage		stage;
	Fault	   *fault;
	bool		abandoned;		/* close without a word */

	bool		asleep;
	int64_t		wake_at;		/* steady_ms */
	struct Exchange *next_asleep;

	/* of a body sent by body_reader */
	size_t		sent;
	int64_t		next_chunk_at;
	size_t		item;			/* where in the page the reader is */
	size_t		item_offset;
	int64_t		header_bytes;	/* sent of slow headers */
} Exchange;

static struct MHD_Daemon *server;
static Exchange *sleepers;
static unsigned connections;
static char *tls_cert;
static char *tls_key;

/* ---- sleeping ---- */

static void
sleep_until(Exchange *x, int64_t when)
{
	x->asleep = true;
	x->wake_at = when;
	x->next_asleep = sleepers;
	sleepers = x;
	MHD_suspend_connection(x->connection);
}

static bool
peer_has_gone(const Exchange *x)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	char		c;

	return info && recv(info->connect_fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* One more byte of a header that never ends; by the socket itself. */
static void
dribble_header(Exchange *x)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: ";
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	for (int64_t i = 0; i < x->answer.bytes && info; i++, x->header_bytes++)
	{
		char		c = x->header_bytes < (int64_t) sizeof(head) - 1 ? head[x->header_bytes] : 'z';

		if (send(info->connect_fd, &c, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
			x->abandoned = true;
	}
}

/* Wakes those whose time has come; how long the others may sleep, in ms. */
static int
wake_sleepers(void)
{
	int64_t		now = steady_ms();
	int64_t		next = FOREVER;
	static int64_t last_look;
	bool		look = now - last_look >= 500;

	if (look)
		last_look = now;
	for (Exchange **p = &sleepers; *p;)
	{
		Exchange   *x = *p;

		if (look && peer_has_gone(x))
			x->abandoned = true;
		if (!x->abandoned && x->wake_at <= now && x->stage == STAGE_SEND &&
			x->answer.delivery == DELIVER_SLOW_HEADERS)
		{
			dribble_header(x);
			x->wake_at = now + x->answer.delay_ms;
		}
		if (x->abandoned || x->wake_at <= now)
		{
			*p = x->next_asleep;
			x->asleep = false;
			MHD_resume_connection(x->connection);
			next = now;			/* the library looks at it when it is run */
			continue;
		}
		if (x->wake_at < next)
			next = x->wake_at;
		p = &x->next_asleep;
	}
	if (next == FOREVER && sleepers == NULL)
		return -1;
	return next - now > 500 ? 500 : (int) (next - now);
}

/* Closes connections that hang by a fault that is no more. */
void
server_release_hung(void)
{
	for (Exchange *x = sleepers; x; x = x->next_asleep)
		if (x->stage == STAGE_SEND && (x->answer.delivery == DELIVER_NEVER ||
									   x->answer.delivery == DELIVER_SLOW_HEADERS))
			x->abandoned = true;
}

/* ---- answers ---- */

/* Copies the next bytes of an answer, whether text or page. */
static size_t
copy_body(Exchange *x, char *buf, size_t max)
{
	Answer	   *a = &x->answer;
	size_t		n = 0;

	if (a->items == NULL)
	{
		n = a->body.len - x->sent < max ? a->body.len - x->sent : max;
		memcpy(buf, a->body.data + x->sent, n);
		return n;
	}
	if (x->sent == 0)
		buf[n++] = '[';
	while (n < max && x->item < a->nitems)
	{
		const Blob *b = a->items[x->item];
		size_t		skip = (x->item == 0) + x->item_offset;
		size_t		part = b->len - skip < max - n ? b->len - skip : max - n;

		memcpy(buf + n, b->data + skip, part);
		n += part;
		x->item_offset += part;
		if (skip + part == b->len)
			x->item++, x->item_offset = 0;
	}
	if (n < max && x->item == a->nitems && x->sent + n + 1 == answer_length(a))
		buf[n++] = ']';
	return n;
}

static ssize_t
body_reader(void *cls, uint64_t pos, char *buf, size_t max)
{
	Exchange   *x = cls;
	Answer	   *a = &x->answer;
	size_t		n;

	(void) pos;
	if (x->abandoned)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (a->delivery == DELIVER_FILLER || a->delivery == DELIVER_ENDLESS)
	{
		if ((int64_t) x->sent >= a->bytes)
			return MHD_CONTENT_READER_END_OF_STREAM;
		memset(buf, ' ', max);
		if (x->sent == 0)
			buf[0] = '[';
		n = (int64_t) (x->sent + max) > a->bytes ? (size_t) a->bytes - x->sent : max;
		x->sent += n;
		return (ssize_t) n;
	}
	if (a->delivery == DELIVER_PART)
	{
		if ((int64_t) x->sent >= a->bytes)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		if ((int64_t) max > a->bytes - (int64_t) x->sent)
			max = (size_t) (a->bytes - (int64_t) x->sent);
	}
	else if (a->delivery == DELIVER_SLOWLY)
	{
		if (steady_ms() < x->next_chunk_at)
		{
			sleep_until(x, x->next_chunk_at);
			return 0;
		}
		x->next_chunk_at = steady_ms() + a->delay_ms;
		if ((int64_t) max > a->bytes)
			max = (size_t) a->bytes;
	}
	n = copy_body(x, buf, max);
	x->sent += n;
	return (ssize_t) n;
}

/* The pieces of a page that the socket is to send, kept until it has. */
typedef struct Page
{
	size_t		n;
	Blob	   *items[];
} Page;

static void
page_free(void *cls)
{
	Page	   *page = cls;

	for (size_t i = 0; i < page->n; i++)
		blob_unref(page->items[i]);
	free(page);
}

static struct MHD_Response *
page_response(Answer *a)
{
	struct MHD_IoVec iov[256];
	Page	   *page = xmalloc(sizeof(Page) + a->nitems * sizeof(Blob *));
	unsigned	n = 0;

	page->n = a->nitems;
	iov[n++] = (struct MHD_IoVec) {"[", 1};
	for (size_t i = 0; i < a->nitems; i++)
	{
		page->items[i] = blob_ref(a->items[i]);
		iov[n++] = (struct MHD_IoVec) {a->items[i]->data + (i == 0), a->items[i]->len - (i == 0)};
	}
	iov[n++] = (struct MHD_IoVec) {"]", 1};
	return MHD_create_response_from_iovec(iov, n, page_free, page);
}

/* Puts the body together and compresses it; false if that does not work. */
static bool
compress_answer(Exchange *x)
{
	Answer	   *a = &x->answer;
	Text		plain = {0};
	Text		packed = {0};
	z_stream	z;
	size_t		len = answer_length(a);
	int			rc;

	plain.data = xmalloc(len + 1);
	plain.len = copy_body(x, plain.data, len);
	x->item = x->item_offset = 0;
	memset(&z, 0, sizeof(z));
	if (deflateInit2(&z, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) != Z_OK)
	{
		text_free(&plain);
		return false;
	}
	packed.cap = deflateBound(&z, (uLong) plain.len) + 1;
	packed.data = xmalloc(packed.cap);
	z.next_in = (Bytef *) plain.data;
	z.avail_in = (uInt) plain.len;
	z.next_out = (Bytef *) packed.data;
	z.avail_out = (uInt) packed.cap;
	rc = deflate(&z, Z_FINISH);
	packed.len = z.total_out;
	deflateEnd(&z);
	text_free(&plain);
	if (rc != Z_STREAM_END)
	{
		text_free(&packed);
		return false;
	}
	answer_clear(a);
	a->body = packed;
	answer_header(a, "Content-Encoding", "gzip");
	return true;
}

static struct MHD_Response *
make_response(Exchange *x)
{
	Answer	   *a = &x->answer;
	struct MHD_Response *response;

	if (options.gzip && x->request.takes_gzip && !x->request.admin && answer_length(a) > 200)
		compress_answer(x);
	if (a->delivery == DELIVER_FILLER)
		return MHD_create_response_from_callback((uint64_t) a->bytes, 65536, body_reader, x, NULL);
	if (a->delivery == DELIVER_ENDLESS)
		return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 65536, body_reader, x, NULL);
	if (a->delivery != DELIVER || a->nitems > 250)
		return MHD_create_response_from_callback(answer_length(a), 65536, body_reader, x, NULL);
	if (a->items)
		return page_response(a);
	response = MHD_create_response_from_buffer(a->body.len, a->body.data ? a->body.data : (char *) "",
											   a->body.data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	memset(&a->body, 0, sizeof(a->body));
	return response;
}

static enum MHD_Result
send_answer(Exchange *x)
{
	Answer	   *a = &x->answer;
	struct MHD_Response *response;
	enum MHD_Result result;

	journal_end(&x->request, a->status, a->delivery != DELIVER_NOTHING);
	if (a->delivery == DELIVER_NOTHING)
		return MHD_NO;
	response = make_response(x);
	if (response == NULL)
		return MHD_NO;
	if (a->content_type)
		MHD_add_response_header(response, "Content-Type", a->content_type);
	for (int i = 0; i < a->nheaders; i++)
		MHD_add_response_header(response, a->headers[i].name, a->headers[i].value);
	result = MHD_queue_response(x->connection, (unsigned) a->status, response);
	MHD_destroy_response(response);
	return result;
}

/* ---- requests ---- */

static char *
header(struct MHD_Connection *c, const char *name)
{
	const char *s = MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);

	return s ? xstrdup(s) : NULL;
}

static void
read_headers(Exchange *x, const char *method)
{
	Request    *r = &x->request;
	const char *encodings = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Accept-Encoding");
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	unsigned   *number = info ? info->socket_context : NULL;

	r->method = xstrdup(method);
	r->user_agent = header(x->connection, "User-Agent");
	r->authorization = header(x->connection, "Authorization");
	r->content_type = header(x->connection, "Content-Type");
	r->experimental = header(x->connection, "X-SailPoint-Experimental");
	r->takes_gzip = encodings && strstr(encodings, "gzip") != NULL;
	route_parse(r);
	if (number && *number == 0 && !r->admin)
	{
		*number = ++connections;
		journal_first_use();
	}
	r->connection = number ? *number : 0;
	x->stage = STAGE_BODY;
}

/* The request is here; true if its connection now sleeps. */
static bool
begin(Exchange *x)
{
	int			delay = 0;
	Request    *r = &x->request;

	r->arrived = wall_clock();
	r->arrived_ms = steady_ms();
	x->stage = STAGE_READY;
	if (r->admin)
		return false;
	journal_begin(r);
	delay = options.latency_ms;
	x->fault = fault_take(r);
	if (x->fault)
	{
		r->fault = x->fault->kind;
		if (strncmp(r->fault, "slow", 4) != 0 && strcmp(r->fault, "late") != 0)
			delay += x->fault->delay_ms;
	}
	if (delay <= 0)
		return false;
	sleep_until(x, r->arrived_ms + delay);
	return true;
}

/* Makes the answer; true if its connection now sleeps. */
static bool
work(Exchange *x)
{
	Request    *r = &x->request;
	Answer	   *a = &x->answer;
	char		id[33];

	x->stage = STAGE_SEND;
	if (x->fault == NULL || !fault_before(x->fault, r, a))
	{
		route(r, a);
		if (x->fault)
			fault_after(x->fault, a);
	}
	if (!r->admin)
	{
		bool		has_id = false;

		for (int i = 0; i < a->nheaders; i++)
			has_id = has_id || strcasecmp(a->headers[i].name, "SLPT-Request-ID") == 0;
		new_id(id);
		if (!has_id)
			answer_header(a, "SLPT-Request-ID", id);
	}
	if (a->delivery == DELIVER_NEVER || a->delivery == DELIVER_SLOW_HEADERS)
		journal_end(r, 0, false);
	if (a->delivery == DELIVER_NEVER)
		sleep_until(x, FOREVER);
	else if (a->delivery == DELIVER_SLOW_HEADERS)
		sleep_until(x, steady_ms());
	else if (a->hold_ms > 0)
		sleep_until(x, steady_ms() + a->hold_ms);
	return x->asleep;
}

static enum MHD_Result
on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
		   const char *version, const char *data, size_t *size, void **con_cls)
{
	Exchange   *x = *con_cls;

	(void) cls, (void) url, (void) version;
	if (x == NULL || x->abandoned)
		return MHD_NO;
	x->connection = connection;
	if (x->stage == STAGE_HEADERS)
	{
		read_headers(x, method);
		return MHD_YES;
	}
	if (*size > 0)
	{
		size_t		limit = x->request.admin ? 1024 * (size_t) MAX_BODY : MAX_BODY;

		if (x->request.body.len + *size > limit)
			x->request.too_large = true;
		else
			text_add(&x->request.body, data, *size);
		*size = 0;
		return MHD_YES;
	}
	if (x->stage == STAGE_BODY && begin(x))
		return MHD_YES;
	if (x->stage == STAGE_READY && work(x))
		return MHD_YES;
	return x->request.admin && x->answer.delivery == DELIVER_NOTHING ? MHD_NO : send_answer(x);
}

static void *
on_uri(void *cls, const char *uri, struct MHD_Connection *connection)
{
	Exchange   *x = xmalloc(sizeof(Exchange));

	(void) cls, (void) connection;
	memset(x, 0, sizeof(*x));
	x->request.uri = xstrdup(uri);
	x->request.api = API_NONE;
	return x;
}

static void
on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
			 enum MHD_RequestTerminationCode code)
{
	Exchange   *x = *con_cls;

	(void) cls, (void) connection, (void) code;
	if (x == NULL)
		return;
	for (Exchange **p = &sleepers; *p; p = &(*p)->next_asleep)
		if (*p == x)
		{
			*p = x->next_asleep;
			break;
		}
	if (x->fault)
		fault_release(x->fault);
	answer_free(&x->answer);
	free((char *) x->request.method);
	free(x->request.uri);
	free(x->request.path);
	free(x->request.query);
	free(x->request.user_agent);
	free(x->request.authorization);
	free(x->request.content_type);
	free(x->request.experimental);
	text_free(&x->request.body);
	free(x);
	*con_cls = NULL;
}

static void
on_connection(void *cls, struct MHD_Connection *connection, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	(void) cls, (void) connection;
	journal_connection(code == MHD_CONNECTION_NOTIFY_STARTED);
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		*context = xmalloc(sizeof(unsigned));
		*(unsigned *) *context = 0;
	}
	else
	{
		free(*context);
		*context = NULL;
	}
}

/* ---- life of the server ---- */

static char *
read_file(const char *path)
{
	FILE	   *f = fopen(path, "rb");
	Text		t = {0};
	char		buf[4096];
	size_t		n;

	if (f == NULL)
	{
		fprintf(stderr, "accessreq-sandbox: cannot read %s: %s\n", path, strerror(errno));
		return NULL;
	}
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
		text_add(&t, buf, n);
	fclose(f);
	text_puts(&t, "");
	return t.data;
}

int
server_start(void)
{
	struct sockaddr_in address;
	unsigned	flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
	struct MHD_OptionItem tls[3] = {{MHD_OPTION_END, 0, NULL}};
	const union MHD_DaemonInfo *info;

	memset(&address, 0, sizeof(address));
	address.sin_family = AF_INET;
	address.sin_port = htons((uint16_t) options.port);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (options.tls_cert)
	{
		tls_cert = read_file(options.tls_cert);
		tls_key = read_file(options.tls_key);
		if (tls_cert == NULL || tls_key == NULL)
			return -1;
		flags |= MHD_USE_TLS;
		tls[0] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_CERT, 0, tls_cert};
		tls[1] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_KEY, 0, tls_key};
		tls[2] = (struct MHD_OptionItem) {MHD_OPTION_END, 0, NULL};
	}
	server = MHD_start_daemon(flags, (uint16_t) options.port, NULL, NULL, on_request, NULL,
							  MHD_OPTION_SOCK_ADDR, &address,
							  MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL,
							  MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
							  MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
							  MHD_OPTION_CONNECTION_LIMIT, 2000u,
							  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) 128 * 1024,
							  MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
	if (server == NULL)
	{
		fprintf(stderr, "accessreq-sandbox: cannot listen on 127.0.0.1:%d%s: %s\n", options.port,
				options.tls_cert ? " with this certificate" : "", strerror(errno));
		return -1;
	}
	info = MHD_get_daemon_info(server, MHD_DAEMON_INFO_BIND_PORT);
	return info ? info->port : -1;
}

/* Serves until *stop is set by a signal, which is let in only while it waits. */
void
server_run(volatile int *stop)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(server, MHD_DAEMON_INFO_EPOLL_FD);
	struct pollfd pfd = {.fd = info->epoll_fd,.events = POLLIN};
	sigset_t	open_mask;

	sigemptyset(&open_mask);
	while (!*stop)
	{
		int			ms = wake_sleepers();
		MHD_UNSIGNED_LONG_LONG mhd_ms;
		struct timespec wait;

		if (MHD_get_timeout(server, &mhd_ms) == MHD_YES && (ms < 0 || mhd_ms < (unsigned) ms))
			ms = mhd_ms > 10000 ? 10000 : (int) mhd_ms;
		wait.tv_sec = ms / 1000;
		wait.tv_nsec = ms % 1000 * 1000000L;
		ppoll(&pfd, 1, ms < 0 ? NULL : &wait, &open_mask);
		MHD_run(server);
	}
}

void
server_stop(void)
{
	for (Exchange *x = sleepers; x; x = x->next_asleep)
		x->abandoned = true;
	wake_sleepers();
	MHD_run(server);
	MHD_stop_daemon(server);
	free(tls_cert);
	free(tls_key);
}
