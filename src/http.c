/*-------------------------------------------------------------------------
 *
 * http.c
 *	  HTTP requests that are started and then waited for, any of several.
 *
 * libcurl's multi interface drives the transfers; a WaitEventSet on our latch,
 * postmaster death and libcurl's sockets does the waiting, so that a backend
 * in here answers a cancel as quickly as one that waits for a lock.
 *
 * Rules that hold all through this file:
 *
 * - All signals are blocked around every call of libcurl.  Its resolver thread
 *	 inherits the mask of the thread that starts it, and would otherwise run
 *	 PostgreSQL's signal handlers, which are not made for a second thread.
 *
 * - Nothing may be thrown out of a callback of libcurl: a longjmp leaves the
 *	 library in a state in which it refuses even to clean up.  Callbacks touch
 *	 malloc'd memory, note what is wrong, and return short; errors are raised
 *	 after libcurl has returned.
 *
 * - A body is handed out once.  libcurl repeats a request by itself when a
 *	 connection that it reused turns out to be dead, POST included; refusing to
 *	 rewind the body makes it report the failure instead, and whether to send
 *	 again is decided where it is known what the request means.
 *
 * - A body is not handed to a connection that is known to be dead.  libcurl
 *	 looks for dead ones before it takes one, but from some release after 8.14
 *	 on only once a second; in between a POST would be reported as lost that
 *	 never left.  So we look ourselves, and take a new connection where one of
 *	 the idle ones has ended.  One that ends after the look stays unknown.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "compat.h"
#include "http.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * Older libraries join the resolver's thread when a request is taken down: a
 * terminated backend then waits for a name server, with signals blocked.
 */
#define MIN_LIBCURL_NUM 0x075700
#define MIN_LIBCURL "7.87.0"
#if LIBCURL_VERSION_NUM < MIN_LIBCURL_NUM
#error "accessreq needs libcurl 7.87.0 or later"
#endif

/*
 * Idle connections kept for reuse.  A process talks to a tenant or two, with
 * a handful of requests at once; more would only hold descriptors.
 */
#define MAX_IDLE_CONNECTIONS 8

/*
 * An idle connection older than this is not used again: load balancers close
 * theirs after 60 s, and a POST that meets the closing cannot be repeated.
 */
#define MAX_IDLE_SECONDS 50L

/* Sockets libcurl may ask us to watch; connections and resolvers. */
#define MAX_SOCKETS 128

/* Sockets open at once: each connection may be tried to two addresses. */
#define MAX_DESCRIPTORS (2 * MAX_SOCKETS)

/* Bytes of header lines an answer may have; real ones stay under 8 kB. */
#define MAX_HEADER_BYTES (256 * 1024)

/* First allocation for a body; most answers fit, pages grow from there. */
#define INITIAL_BODY_BYTES 8192

/* Latch and postmaster death, besides the sockets. */
#define EXTRA_EVENTS 2

/* Look at interrupts and timers at least this often. */
#define MAX_WAIT_MS 60000L

struct HttpSet
{
	MemoryContext cxt;
	MemoryContextCallback callback;
	dlist_head	requests;		/* under way or ended; HttpRequest.node */
	dlist_head	taken;			/* returned by http_wait() */
};

struct HttpRequest
{
	dlist_node	node;
	HttpSet    *set;
	void	   *tag;
	CURL	   *easy;
	struct curl_slist *headers;
	uint64		peer;			/* whom its connection is to, hashed */
	char	   *body;			/* of the request, malloc'd */
	size_t		body_len;
	size_t		body_sent;
	bool		added;			/* is "easy" in the multi handle? */
	bool		done;
	bool		too_large;
	bool		no_memory;
	bool		no_descriptor;
	bool		headers_done;	/* has the empty line after them come? */
	size_t		header_bytes;
	size_t		body_alloc;
	size_t		max_response;
	char		errbuf[CURL_ERROR_SIZE];
	HttpResponse response;
};

/* What libcurl wants watched. */
typedef struct WatchedSocket
{
	curl_socket_t fd;
	uint32		events;			/* WL_SOCKET_* */
	int			pos;			/* in the wait event set */
} WatchedSocket;

/* A socket that fd.c was told of. */
typedef struct Descriptor
{
	curl_socket_t fd;
	uint64		peer;			/* of the request that opened it */
	ino_t		inode;
} Descriptor;

/*
 * All of this belongs to the process: connections outlive statements.  The
 * wait event set does too; a resource owner would take it away at the end of
 * each transaction.
 */
static CURLM *multi = NULL;
static WatchedSocket sockets[MAX_SOCKETS];
static int	nsockets = 0;
static bool sockets_changed = true;
static Descriptor descriptors[MAX_DESCRIPTORS];
static int	ndescriptors = 0;
static WaitEventSet *wait_set = NULL;
static bool timer_armed = false;
static instr_time timer_set;
static long timer_ms = 0;

/* ---------------------------------------------------------------- signals */

static void
block_signals(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* -------------------------------------------------------------- callbacks */

static WatchedSocket *
find_socket(curl_socket_t fd)
{
	for (int i = 0; i < nsockets; i++)
	{
		if (sockets[i].fd == fd)
			return &sockets[i];
	}
	return NULL;
}

/* CURLMOPT_SOCKETFUNCTION: libcurl tells which sockets to watch, for what. */
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	WatchedSocket *s = find_socket(fd);
	uint32		events = 0;

	if (what == CURL_POLL_REMOVE)
	{
		if (s != NULL)
		{
			*s = sockets[--nsockets];
			sockets_changed = true;
		}
		return 0;
	}
	if (what & CURL_POLL_IN)
		events |= WL_SOCKET_READABLE;
	if (what & CURL_POLL_OUT)
		events |= WL_SOCKET_WRITEABLE;
	if (s == NULL)
	{
		if (nsockets >= MAX_SOCKETS)
			return -1;
		s = &sockets[nsockets++];
		s->fd = fd;
		sockets_changed = true;
	}
	else if (s->events != events)
		sockets_changed = true;
	s->events = events;
	return 0;
}

/* CURLMOPT_TIMERFUNCTION: call us again in timeout_ms, or never (-1). */
static int
on_timer(CURLM *m, long timeout_ms, void *arg)
{
	timer_armed = (timeout_ms >= 0);
	timer_ms = timeout_ms;
	if (timer_armed)
		INSTR_TIME_SET_CURRENT(timer_set);
	return 0;
}

/* Is it still the socket that we opened? */
static bool
is_open(const Descriptor *d)
{
	struct stat st;

	return fstat(d->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == d->inode;
}

/*
 * fd.c must know of descriptors that are not its own, or it runs out of them.
 * Some releases of libcurl (7.88) do not call CURLOPT_CLOSESOCKETFUNCTION for
 * connections that were given up while they were made, so what is still open
 * is looked at, too.  Must not raise.
 */
static void
release_descriptors(void)
{
	for (int i = ndescriptors - 1; i >= 0; i--)
	{
		if (!is_open(&descriptors[i]))
		{
			descriptors[i] = descriptors[--ndescriptors];
			ReleaseExternalFD();
		}
	}
}

/*
 * Has a connection to a peer that nobody uses anything to say?  Only its end,
 * or what makes it useless: an answer to no request, the alert or the close of
 * TLS.  Those that libcurl watches are in use, and are its business.
 */
static bool
any_idle_is_dead(uint64 peer)
{
	for (int i = 0; i < ndescriptors; i++)
	{
		char		byte;
		ssize_t		n;

		if (descriptors[i].peer != peer || find_socket(descriptors[i].fd) != NULL ||
			!is_open(&descriptors[i]))
			continue;
		do
			n = recv(descriptors[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
		while (n < 0 && errno == EINTR);
		if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOTCONN))
			return true;
	}
	return false;
}

/* CURLOPT_OPENSOCKETFUNCTION */
static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	curl_socket_t fd;
	struct stat st;

	if (ndescriptors >= MAX_DESCRIPTORS || !AcquireExternalFD())
	{
		((HttpRequest *) arg)->no_descriptor = true;
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
				address->protocol);
	if (fd == CURL_SOCKET_BAD || fstat(fd, &st) != 0)
	{
		if (fd != CURL_SOCKET_BAD)
			close(fd);
		((HttpRequest *) arg)->no_descriptor = true;
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	descriptors[ndescriptors].fd = fd;
	descriptors[ndescriptors].peer = ((HttpRequest *) arg)->peer;
	descriptors[ndescriptors++].inode = st.st_ino;
	return fd;
}

static int
on_close_socket(void *arg, curl_socket_t fd)
{
	int			result = close(fd);

	release_descriptors();
	return result;
}

/* CURLOPT_READFUNCTION: the body of the request, once. */
static size_t
on_read(char *buffer, size_t size, size_t nitems, void *arg)
{
	HttpRequest *r = (HttpRequest *) arg;
	size_t		n = Min(size * nitems, r->body_len - r->body_sent);

	memcpy(buffer, r->body + r->body_sent, n);
	r->body_sent += n;
	r->response.sent = true;
	return n;
}

/* CURLOPT_SEEKFUNCTION: see the third rule at the head of this file. */
static int
on_seek(void *arg, curl_off_t offset, int origin)
{
	HttpRequest *r = (HttpRequest *) arg;

	if (r->body_sent == 0 && offset == 0 && origin == SEEK_SET)
		return CURL_SEEKFUNC_OK;
	return CURL_SEEKFUNC_FAIL;
}

/* CURLOPT_WRITEFUNCTION: the body of the answer, inflated, up to the limit. */
static size_t
on_write(char *data, size_t size, size_t nmemb, void *arg)
{
	HttpRequest *r = (HttpRequest *) arg;
	HttpResponse *resp = &r->response;
	size_t		n = size * nmemb;

	if (n > r->max_response - resp->body_len)
	{
		r->too_large = true;
		return 0;
	}
	if (resp->body_len + n + 1 > r->body_alloc)
	{
		size_t		want = Max(r->body_alloc * 2, INITIAL_BODY_BYTES);
		char	   *bigger;

		while (want < resp->body_len + n + 1)
			want *= 2;
		/* realloc() might leave what came so far behind, a token perhaps */
		bigger = malloc(want);
		if (bigger == NULL)
		{
			r->no_memory = true;
			return 0;
		}
		if (resp->body != NULL)
		{
			memcpy(bigger, resp->body, resp->body_len);
			explicit_bzero(resp->body, resp->body_len);
			free(resp->body);
		}
		resp->body = bigger;
		r->body_alloc = want;
	}
	memcpy(resp->body + resp->body_len, data, n);
	resp->body_len += n;
	resp->body[resp->body_len] = '\0';
	return n;
}

/*
 * Copy a header's value, trimmed.  Bytes that are not printable ASCII become
 * question marks: the value may end up in a message.
 */
static void
copy_header(char *dst, const char *value, size_t len)
{
	size_t		n;

	while (len > 0 && (*value == ' ' || *value == '\t'))
		value++, len--;
	while (len > 0 && strchr(" \t\r\n", value[len - 1]) != NULL)
		len--;
	n = Min(len, HTTP_HEADER_LEN - 1);
	for (size_t i = 0; i < n; i++)
		dst[i] = (value[i] >= 0x20 && value[i] < 0x7f) ? value[i] : '?';
	dst[n] = '\0';
}

static bool
header_is(const char *name, const char *line, size_t colon)
{
	return strlen(name) == colon && pg_strncasecmp(name, line, colon) == 0;
}

/* An answer begins: forget the headers of the 100 or the proxy's 200 before. */
static void
reset_headers(HttpResponse *resp)
{
	resp->total_count = -1;
	resp->date = DT_NOBEGIN;
	resp->retry_after[0] = '\0';
	resp->tracking_id[0] = '\0';
	resp->content_type[0] = '\0';
	resp->deprecated = false;
}

static void
note_header(HttpResponse *resp, const char *line, size_t n, size_t colon)
{
	const char *value = line + colon + 1;
	size_t		len = n - colon - 1;
	char		text[HTTP_HEADER_LEN];

	if (header_is("X-Total-Count", line, colon))
	{
		char	   *end;

		copy_header(text, value, len);
		resp->total_count = strtoll(text, &end, 10);
		if (end == text || *end != '\0' || resp->total_count < 0)
			resp->total_count = -1;
	}
	else if (header_is("Retry-After", line, colon))
		copy_header(resp->retry_after, value, len);
	else if (header_is("SLPT-Request-ID", line, colon))
		copy_header(resp->tracking_id, value, len);
	else if (header_is("Content-Type", line, colon))
		copy_header(resp->content_type, value, len);
	else if (header_is("Deprecation", line, colon) ||
			 header_is("X-Deprecated", line, colon))
	{
		copy_header(text, value, len);
		resp->deprecated = pg_strcasecmp(text, "false") != 0;
	}
	else if (header_is("Date", line, colon))
	{
		copy_header(text, value, len);
		resp->date = http_parse_date(text);
	}
}

/* CURLOPT_HEADERFUNCTION: one line a call. */
static size_t
on_header(char *line, size_t size, size_t nitems, void *arg)
{
	HttpRequest *r = (HttpRequest *) arg;
	size_t		n = size * nitems;
	const char *colon;

	r->header_bytes += n;
	if (r->header_bytes > MAX_HEADER_BYTES)
	{
		r->too_large = true;
		return 0;
	}
	if (n >= 5 && memcmp(line, "HTTP/", 5) == 0)
	{
		reset_headers(&r->response);
		r->headers_done = false;
	}
	else if (line[0] == '\r' || line[0] == '\n')
		r->headers_done = true;
	else if ((colon = memchr(line, ':', n)) != NULL)
		note_header(&r->response, line, n, colon - line);
	return n;
}

/* ------------------------------------------------------- dates, encoding */

/*
 * IMF-fixdate, "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7); the two
 * obsolete forms are not sent by anyone we talk to.  Called from a callback:
 * must not raise.
 */
TimestampTz
http_parse_date(const char *text)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	int			day,
				year,
				hour,
				min,
				sec;
	char		month[4];
	const char *m;
	int			days;

	if (sscanf(text, "%*3s, %2d %3s %4d %2d:%2d:%2d GMT",
			   &day, month, &year, &hour, &min, &sec) != 6)
		return DT_NOBEGIN;
	m = strlen(month) == 3 ? strstr(months, month) : NULL;
	if (m == NULL || (m - months) % 3 != 0 || day < 1 || day > 31 ||
		year < 1970 || year > 9999 || hour > 23 || min > 59 || sec > 60 ||
		hour < 0 || min < 0 || sec < 0)
		return DT_NOBEGIN;
	days = date2j(year, (int) (m - months) / 3 + 1, day) - POSTGRES_EPOCH_JDATE;
	return (((int64) days * 24 + hour) * 60 + min) * 60 * USECS_PER_SEC +
		sec * USECS_PER_SEC;
}

char *
http_encode(const char *text)
{
	static const char hex[] = "0123456789ABCDEF";
	char	   *result = palloc(strlen(text) * 3 + 1);
	char	   *p = result;

	for (; *text; text++)
	{
		unsigned char c = (unsigned char) *text;

		/* the unreserved characters of RFC 3986, and ASCII alone */
		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			(c >= '0' && c <= '9') || strchr("-._~", c) != NULL)
			*p++ = c;
		else
		{
			*p++ = '%';
			*p++ = hex[c >> 4];
			*p++ = hex[c & 15];
		}
	}
	*p = '\0';
	return result;
}

/* ------------------------------------------------------------- the process */

/* The library that runs may be another than the one this was compiled with. */
void
http_check_library(void)
{
	const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);

	if (v->version_num < MIN_LIBCURL_NUM)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s is too old", v->version),
				 errdetail("accessreq needs libcurl %s or later: older ones keep a backend that is to end waiting for a name server.",
						   MIN_LIBCURL),
				 errhint("Install a newer libcurl, and restart PostgreSQL.")));
	if (!(v->features & CURL_VERSION_ASYNCHDNS))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s was built without an asynchronous resolver", v->version),
				 errdetail("Nothing could interrupt a backend that waits for a name server."),
				 errhint("Install a libcurl that was built with its threaded resolver or with c-ares, and restart PostgreSQL.")));
}

char *
http_library(void)
{
	const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);

	return psprintf("libcurl %s%s%s", v->version, v->ssl_version ? ", " : "",
					v->ssl_version ? v->ssl_version : "");
}

/* Make the multi handle, at first use: never in the postmaster. */
static void
init_multi(void)
{
	sigset_t	saved;
	bool		ok;

	if (multi != NULL)
		return;
	http_check_library();
	block_signals(&saved);
	ok = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	if (ok && (multi = curl_multi_init()) != NULL)
	{
		curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
		curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
		curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) MAX_IDLE_CONNECTIONS);
	}
	restore_signals(&saved);
	if (multi == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not initialize the HTTP client library")));
}

/*
 * Free what sending needed: a request that has ended may be kept for its
 * answer, among thousands.  Signals are blocked; never raises.
 */
static void
release_sending(HttpRequest *r)
{
	if (r->easy != NULL)
	{
		if (r->added)
			curl_multi_remove_handle(multi, r->easy);
		r->added = false;
		curl_easy_cleanup(r->easy);
		r->easy = NULL;
		release_descriptors();
	}
	/* these hold the token and, for the token's own request, the secret */
	for (struct curl_slist *h = r->headers; h != NULL; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(r->headers);
	r->headers = NULL;
	if (r->body != NULL)
	{
		explicit_bzero(r->body, r->body_len);
		free(r->body);
		r->body = NULL;
	}
}

/* Free what a request holds outside memory contexts.  Never raises. */
static void
release_request(HttpRequest *r)
{
	sigset_t	saved;

	block_signals(&saved);
	release_sending(r);
	restore_signals(&saved);
	if (r->response.body != NULL)
	{
		/* answers hold tokens and personal data */
		explicit_bzero(r->response.body, r->body_alloc);
		free(r->response.body);
		r->response.body = NULL;
	}
}

static void
release_list(dlist_head *list)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, list)
	{
		HttpRequest *r = dlist_container(HttpRequest, node, iter.cur);

		dlist_delete(&r->node);
		release_request(r);
	}
}

static void
release_set(void *arg)
{
	HttpSet    *set = (HttpSet *) arg;

	release_list(&set->requests);
	release_list(&set->taken);
}

HttpSet *
http_open(MemoryContext parent)
{
	MemoryContext cxt;
	HttpSet    *set;

	init_multi();
	cxt = AllocSetContextCreate(parent, "accessreq HTTP requests",
								ALLOCSET_SMALL_SIZES);
	set = MemoryContextAllocZero(cxt, sizeof(HttpSet));
	set->cxt = cxt;
	dlist_init(&set->requests);
	dlist_init(&set->taken);
	set->callback.func = release_set;
	set->callback.arg = set;
	MemoryContextRegisterResetCallback(cxt, &set->callback);
	return set;
}

/* ---------------------------------------------------------------- starting */

static void prepare_wait_set(void);
static void reap(void);

/* Append a header; the caller has signals blocked.  False without memory. */
static bool
add_header(HttpRequest *r, const char *line)
{
	struct curl_slist *longer = curl_slist_append(r->headers, line);

	if (longer == NULL)
		return false;
	r->headers = longer;
	return true;
}

/* As psprintf() would, which leaves a first try that was too short behind. */
static char *
header_line(const char *name, const char *separator, const char *value)
{
	size_t		size = strlen(name) + strlen(separator) + strlen(value) + 1;
	char	   *line;

	if (strpbrk(value, "\r\n") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a value for the HTTP header \"%s\" holds a line break", name)));
	line = palloc(size);
	snprintf(line, size, "%s%s%s", name, separator, value);
	return line;
}

/* Everything that is the same for all requests. */
static bool
set_fixed_options(HttpRequest *r, const HttpSpec *spec)
{
	CURL	   *e = r->easy;
	bool		https = pg_strncasecmp(spec->url, "https://", 8) == 0;
	int			bad = 0;

#define OPT(option, value) (bad |= (curl_easy_setopt(e, option, value) != CURLE_OK))
	OPT(CURLOPT_NOSIGNAL, 1L);
	OPT(CURLOPT_NOPROGRESS, 1L);
	OPT(CURLOPT_FOLLOWLOCATION, 0L);	/* the token would follow */
	OPT(CURLOPT_PROTOCOLS_STR, https ? "https" : "http");
	OPT(CURLOPT_QUICK_EXIT, 1L);	/* do not join a stuck resolver thread */
	OPT(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	OPT(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	OPT(CURLOPT_ACCEPT_ENCODING, "gzip");
	OPT(CURLOPT_TCP_NODELAY, 1L);
	OPT(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
	OPT(CURLOPT_BUFFERSIZE, 256L * 1024);	/* pages have some 600 kB */
	OPT(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	OPT(CURLOPT_OPENSOCKETDATA, r);
	OPT(CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
	OPT(CURLOPT_WRITEFUNCTION, on_write);
	OPT(CURLOPT_WRITEDATA, r);
	OPT(CURLOPT_HEADERFUNCTION, on_header);
	OPT(CURLOPT_HEADERDATA, r);
	OPT(CURLOPT_ERRORBUFFER, r->errbuf);
	OPT(CURLOPT_PRIVATE, r);
	OPT(CURLOPT_URL, spec->url);
	OPT(CURLOPT_USERAGENT, spec->user_agent);
	/* the option alone decides, not the environment of the server process */
	OPT(CURLOPT_PROXY, spec->proxy ? spec->proxy : "");
	OPT(CURLOPT_NOPROXY, "");
	OPT(CURLOPT_CONNECTTIMEOUT_MS, Max(spec->connect_timeout_ms, 1L));
	OPT(CURLOPT_TIMEOUT_MS, Max(spec->timeout_ms, 1L));
	if (spec->body != NULL)
	{
		OPT(CURLOPT_POST, 1L);
		OPT(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) spec->body_len);
		OPT(CURLOPT_READFUNCTION, on_read);
		OPT(CURLOPT_READDATA, r);
		OPT(CURLOPT_SEEKFUNCTION, on_seek);
		OPT(CURLOPT_SEEKDATA, r);
	}
	if (strcmp(spec->method, spec->body ? "POST" : "GET") != 0)
		OPT(CURLOPT_CUSTOMREQUEST, spec->method);
#undef OPT
	return !bad;
}

/*
 * From this release on a folder of CAs that is unset is the built-in one again
 * (custom_capath follows the value).  Then the folder is one in which nothing
 * can be: the file itself.
 */
#define UNSET_CAPATH_IS_DEFAULT 0x081500

/*
 * Whom a request trusts: the system's CAs, or those of ca_file and no others.
 * libcurl reads its built-in folder of CAs beside a file that is named.  A proxy
 * that is spoken to over TLS is held to the same.
 *
 * A new connection goes by the file as it is then: with a store that libcurl
 * caches (a day) or a TLS session that is resumed, one that has been replaced
 * would go on vouching for peers that it does not know any more.
 */
static bool
set_trust(CURL *e, const char *ca_file)
{
	const char *folder = NULL;
	int			bad = 0;
	CURLcode	code;

	if (ca_file != NULL &&
		curl_version_info(CURLVERSION_NOW)->version_num >= UNSET_CAPATH_IS_DEFAULT)
		folder = ca_file;

#define OPT(option, value) (bad |= (curl_easy_setopt(e, option, value) != CURLE_OK))
	/* what a TLS library does not know it need not be kept from */
#define OPT_IF_KNOWN(option, value) \
	(code = curl_easy_setopt(e, option, value), \
	 bad |= (code != CURLE_OK && code != CURLE_NOT_BUILT_IN))
	OPT(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	OPT(CURLOPT_SSL_VERIFYPEER, 1L);
	OPT(CURLOPT_SSL_VERIFYHOST, 2L);
	OPT(CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	OPT(CURLOPT_PROXY_SSL_VERIFYPEER, 1L);
	OPT(CURLOPT_PROXY_SSL_VERIFYHOST, 2L);
	if (ca_file != NULL)
	{
		OPT(CURLOPT_CAINFO, ca_file);
		OPT(CURLOPT_PROXY_CAINFO, ca_file);
		OPT_IF_KNOWN(CURLOPT_CAPATH, folder);
		OPT_IF_KNOWN(CURLOPT_PROXY_CAPATH, folder);
		OPT_IF_KNOWN(CURLOPT_CA_CACHE_TIMEOUT, 0L);
		OPT(CURLOPT_SSL_SESSIONID_CACHE, 0L);
	}
#undef OPT_IF_KNOWN
#undef OPT
	return !bad;
}

/* The part of http_start() that runs with signals blocked: must not raise. */
static bool
start_easy(HttpRequest *r, const HttpSpec *spec,
		   const char *const *lines, int nlines)
{
	int			running;

	r->easy = curl_easy_init();
	if (r->easy == NULL)
		return false;
	if (spec->body != NULL)
	{
		r->body = malloc(spec->body_len + 1);
		if (r->body == NULL)
			return false;
		memcpy(r->body, spec->body, spec->body_len);
		r->body_len = spec->body_len;
	}
	for (int i = 0; i < nlines; i++)
	{
		if (!add_header(r, lines[i]))
			return false;
	}
	if (spec->body != NULL && any_idle_is_dead(r->peer) &&
		curl_easy_setopt(r->easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK)
		return false;
	if (!set_fixed_options(r, spec) || !set_trust(r->easy, spec->ca_file) ||
		curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers) != CURLE_OK)
		return false;
	if (curl_multi_add_handle(multi, r->easy) != CURLM_OK)
		return false;
	r->added = true;
	/* off it goes, over a connection that is there: nobody may wait yet */
	curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap();
	return true;
}

/*
 * Whose connections libcurl may take for a request: scheme, host, port and
 * proxy, hashed, however they are spelled.
 */
static uint64
peer_of(const HttpSpec *spec)
{
	const char *text[] = {spec->url, spec->proxy ? spec->proxy : ""};
	uint64		h = 0;

	for (int i = 0; i < lengthof(text); i++)
	{
		const char *host = strstr(text[i], "://");
		size_t		len = host ? host + 3 - text[i] : 0;
		bool		https = pg_strncasecmp(text[i], "https:", 6) == 0;
		char	   *peer;

		len += strcspn(text[i] + len, "/?");
		peer = pnstrdup(text[i], len);
		for (char *p = peer; *p; p++)
			*p = pg_ascii_tolower((unsigned char) *p);
		if (len > 4 && (https ? strcmp(peer + len - 4, ":443") : strcmp(peer + len - 3, ":80")) == 0)
			len -= https ? 4 : 3;
		h = hash_bytes_extended((const unsigned char *) peer, len, h + 1);
		pfree(peer);
	}
	return h;
}

HttpRequest *
http_start(HttpSet *set, const HttpSpec *spec, void *tag)
{
	HttpRequest *r = MemoryContextAllocZero(set->cxt, sizeof(HttpRequest));
	const char *lines[5];
	char	   *authorization = NULL;
	int			n = 0;
	sigset_t	saved;
	bool		ok;

	r->set = set;
	r->tag = tag;
	r->max_response = spec->max_response;
	r->peer = peer_of(spec);
	r->response.sent_at = GetCurrentTimestamp();
	reset_headers(&r->response);

	lines[n++] = "Accept: application/json";
	/* no "Expect: 100-continue": it costs a round trip and gateways differ */
	lines[n++] = "Expect:";
	if (spec->bearer != NULL)
		lines[n++] = authorization = header_line("Authorization: Bearer", " ", spec->bearer);
	if (spec->content_type != NULL)
		lines[n++] = header_line("Content-Type", ": ", spec->content_type);
	if (spec->header != NULL)
		lines[n++] = spec->header;

	/* before connections take the descriptors that are left */
	if (wait_set == NULL)
		prepare_wait_set();
	dlist_push_tail(&set->requests, &r->node);
	block_signals(&saved);
	ok = start_easy(r, spec, lines, n);
	restore_signals(&saved);
	if (authorization != NULL)
	{
		explicit_bzero(authorization, strlen(authorization));
		pfree(authorization);
	}
	if (!ok)
	{
		http_free(r);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not start an HTTP request"),
				 errdetail("The HTTP client library refused it, or memory ran out.")));
	}
	return r;
}

void *
http_tag(HttpRequest *request)
{
	return request->tag;
}

HttpResponse *
http_response(HttpRequest *request)
{
	return &request->response;
}

void
http_settle_for_status(HttpRequest *request)
{
	HttpResponse *resp = &request->response;

	if (resp->body == NULL)
		resp->body = calloc(1, 1);
	if (resp->body == NULL)
		return;
	resp->body[0] = '\0';
	resp->body_len = 0;
	resp->error[0] = '\0';
	resp->failure = HTTP_ANSWERED;
}

void
http_forget_tracking_id(HttpRequest *request)
{
	explicit_bzero(request->response.tracking_id, HTTP_HEADER_LEN);
}

void
http_free(HttpRequest *request)
{
	dlist_delete(&request->node);
	release_request(request);
	pfree(request);
}

/* ----------------------------------------------------------------- waiting */

static HttpFailure
classify(const HttpRequest *r, CURLcode code)
{
	if (r->too_large)
		return HTTP_FAILED_TOO_LARGE;
	if (code != CURLE_OK && (r->no_memory || r->no_descriptor))
		return HTTP_FAILED_LOCAL;
	switch (code)
	{
		case CURLE_OK:
			/* libcurl takes an end amid the header lines for an empty body */
			return r->headers_done ? HTTP_ANSWERED : HTTP_FAILED_BROKEN;
		case CURLE_COULDNT_RESOLVE_HOST:
			return HTTP_FAILED_RESOLVE;
		case CURLE_COULDNT_CONNECT:
			return HTTP_FAILED_CONNECT;
		case CURLE_COULDNT_RESOLVE_PROXY:
		case CURLE_PROXY:
			return HTTP_FAILED_PROXY;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
			return HTTP_FAILED_TLS;
		case CURLE_OPERATION_TIMEDOUT:
			return HTTP_FAILED_TIMEOUT;
		case CURLE_OUT_OF_MEMORY:
		case CURLE_FAILED_INIT:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ENGINE_NOTFOUND:
		case CURLE_SSL_ENGINE_SETFAILED:
		case CURLE_URL_MALFORMAT:
			return HTTP_FAILED_LOCAL;
		case CURLE_UNSUPPORTED_PROTOCOL:
			/* a library without TLS; after sending, an answer that is not HTTP */
			return r->response.sent ? HTTP_FAILED_BROKEN : HTTP_FAILED_LOCAL;
		default:
			return HTTP_FAILED_BROKEN;
	}
}

/* A transfer has ended: note how.  Signals are blocked; must not raise. */
static void
finish_transfer(HttpRequest *r, CURLcode code)
{
	HttpResponse *resp = &r->response;
	long		status = 0;
	long		request_size = 0;
	const char *words;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
	resp->status = (int) status;
	/* one with a body has said so itself when the body was read */
	if (r->body == NULL &&
		curl_easy_getinfo(r->easy, CURLINFO_REQUEST_SIZE, &request_size) == CURLE_OK)
		resp->sent = request_size > 0;
	resp->failure = classify(r, code);
	words = code == CURLE_SEND_FAIL_REWIND ? "The connection was closed after the request had left" :
		r->errbuf[0] ? r->errbuf :
		code == CURLE_OK ? "The answer ended amid its header lines" :
		curl_easy_strerror(code);
	if (resp->failure != HTTP_ANSWERED)
		strlcpy(resp->error, words, sizeof(resp->error));
	if (resp->failure == HTTP_ANSWERED && resp->body == NULL)
	{
		resp->body = calloc(1, 1);
		if (resp->body == NULL)
			resp->failure = HTTP_FAILED_LOCAL;
	}
	if (resp->body != NULL && r->body_alloc == INITIAL_BODY_BYTES)
	{
		char	   *smaller = realloc(resp->body, resp->body_len + 1);

		if (smaller != NULL)
		{
			resp->body = smaller;
			r->body_alloc = resp->body_len + 1;
		}
	}
	/* gives the connection back to the cache, too */
	release_sending(r);
	r->done = true;
}

/* Take note of the transfers that have ended, of all sets. */
static void
reap(void)
{
	CURLMsg    *msg;
	int			left;

	while ((msg = curl_multi_info_read(multi, &left)) != NULL)
	{
		HttpRequest *r = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **) &r);
		finish_transfer(r, msg->data.result);
	}
}

HttpRequest *
http_take(HttpSet *set)
{
	dlist_iter	iter;

	dlist_foreach(iter, &set->requests)
	{
		HttpRequest *r = dlist_container(HttpRequest, node, iter.cur);

		if (r->done)
		{
			dlist_delete(&r->node);
			dlist_push_tail(&set->taken, &r->node);
			return r;
		}
	}
	return NULL;
}

/* Milliseconds until libcurl's timer, -1 without one. */
static long
timer_left(void)
{
	instr_time	now;

	if (!timer_armed)
		return -1;
	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, timer_set);
	return Max(timer_ms - (long) INSTR_TIME_GET_MILLISEC(now), 0L);
}

/*
 * The wait event set for the sockets of this moment.  An event cannot be
 * removed from a set, so it is made anew whenever libcurl changes its mind: a
 * few times a request, some microseconds each.
 */
static void
prepare_wait_set(void)
{
	if (wait_set != NULL && !sockets_changed)
		return;
	if (wait_set != NULL)
	{
		WaitEventSet *old = wait_set;

		wait_set = NULL;
		FreeWaitEventSet(old);
	}
	sockets_changed = true;		/* until it is complete */
	wait_set = compat_create_wait_event_set(nsockets + EXTRA_EVENTS);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	/* in single-user mode there is none */
	if (IsUnderPostmaster)
		AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < nsockets; i++)
		sockets[i].pos = AddWaitEventToSet(wait_set, sockets[i].events,
										   sockets[i].fd, NULL, NULL);
	sockets_changed = false;
}

/* Let libcurl work on what happened; returns with the ended ones noted. */
static void
drive(const WaitEvent *events, int nevents, bool timer)
{
	sigset_t	saved;
	int			running;

	block_signals(&saved);
	for (int i = 0; i < nevents; i++)
	{
		int			mask = 0;

		if (events[i].fd == PGINVALID_SOCKET)
			continue;
		if (events[i].events & WL_SOCKET_READABLE)
			mask |= CURL_CSELECT_IN;
		if (events[i].events & WL_SOCKET_WRITEABLE)
			mask |= CURL_CSELECT_OUT;
		if (mask != 0)
			curl_multi_socket_action(multi, events[i].fd, mask, &running);
	}
	if (timer)
	{
		timer_armed = false;
		curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	reap();
	restore_signals(&saved);
}

/*
 * Wait once, at most max_ms (-1: no limit), and let libcurl work.  True where
 * the latch was set.
 */
static bool
wait_once(long max_ms)
{
	bool		woken = false;
	WaitEvent	events[MAX_SOCKETS + EXTRA_EVENTS];
	long		timer = timer_left();
	int			n;

	prepare_wait_set();
	if (timer >= 0)
		max_ms = max_ms < 0 ? timer : Min(max_ms, timer);
	n = WaitEventSetWait(wait_set, max_ms, events, lengthof(events),
						 compat_wait_event(WAIT_HTTP));
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			woken = true;
		}
	}
	CHECK_FOR_INTERRUPTS();
	drive(events, n, timer_left() == 0);
	return woken;
}

static bool
has_done(HttpSet *set)
{
	dlist_iter	iter;

	dlist_foreach(iter, &set->requests)
	{
		if (dlist_container(HttpRequest, node, iter.cur)->done)
			return true;
	}
	return false;
}

void
http_wait(HttpSet *set, long timeout_ms)
{
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		instr_time	now;
		long		left = MAX_WAIT_MS;

		CHECK_FOR_INTERRUPTS();
		if (has_done(set))
			return;
		if (timeout_ms >= 0)
		{
			INSTR_TIME_SET_CURRENT(now);
			INSTR_TIME_SUBTRACT(now, start);
			left = timeout_ms - (long) INSTR_TIME_GET_MILLISEC(now);
			if (left <= 0)
				return;
		}
		(void) wait_once(Min(left, MAX_WAIT_MS));
	}
}

bool
http_sleep(HttpSet *set, long timeout_ms)
{
	instr_time	start;
	instr_time	now;
	long		left = timeout_ms;

	INSTR_TIME_SET_CURRENT(start);
	while (!has_done(set))
	{
		if (wait_once(left))
			return true;
		if (left == 0)
			break;
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		if (timeout_ms >= 0)
			left = Max(timeout_ms - (long) INSTR_TIME_GET_MILLISEC(now), 0);
	}
	return false;
}
