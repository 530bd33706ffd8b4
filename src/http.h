/*-------------------------------------------------------------------------
 *
 * http.h
 *	  HTTP requests that are started and then waited for, any of several.
 *
 * The one user of libcurl and the one place of the extension that waits.
 * While it waits, interrupts are obeyed: statement_timeout, query cancel and
 * termination end a wait at once, in every phase of a request.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_HTTP_H
#define ACCESSREQ_HTTP_H

#include "postgres.h"
#include "datatype/timestamp.h"

/* The requests of one opener; freed with the memory context it was opened in. */
typedef struct HttpSet HttpSet;
typedef struct HttpRequest HttpRequest;

/* Why there is no complete answer. */
typedef enum HttpFailure
{
	HTTP_ANSWERED = 0,			/* there is: see the status */
	HTTP_FAILED_RESOLVE,		/* the host's name could not be looked up */
	HTTP_FAILED_CONNECT,		/* refused, unreachable */
	HTTP_FAILED_PROXY,			/* the same for the proxy */
	HTTP_FAILED_TLS,			/* handshake or certificate */
	HTTP_FAILED_TIMEOUT,		/* in any phase: see "sent" */
	HTTP_FAILED_TOO_LARGE,		/* the body is over max_response */
	HTTP_FAILED_BROKEN,			/* reset, truncated, not HTTP */
	HTTP_FAILED_LOCAL			/* memory, descriptors, a file, the library */
} HttpFailure;

#define HTTP_ERROR_LEN 256
#define HTTP_HEADER_LEN 128

typedef struct HttpResponse
{
	HttpFailure failure;
	char		error[HTTP_ERROR_LEN];	/* the library's words; no secrets */
	bool		sent;			/* may the peer have received the whole
								 * request?  false is a proof that not */
	int			status;			/* of the answer, 0 without one */
	char	   *body;			/* never NULL when answered; terminated by a
								 * NUL that body_len does not count */
	size_t		body_len;
	int64		total_count;	/* X-Total-Count, or -1 */
	TimestampTz date;			/* Date, or DT_NOBEGIN */
	char		retry_after[HTTP_HEADER_LEN];
	char		tracking_id[HTTP_HEADER_LEN];	/* SLPT-Request-ID */
	char		content_type[HTTP_HEADER_LEN];
	bool		deprecated;		/* Deprecation or X-Deprecated was there */
	TimestampTz sent_at;		/* when it was started, by our clock */
} HttpResponse;

typedef struct HttpSpec
{
	const char *method;			/* GET, POST or PUT */
	const char *url;
	const char *bearer;			/* token of the Authorization header, or NULL */
	const char *content_type;	/* of the body */
	const char *header;			/* one more "Name: value", or NULL */
	const char *body;			/* NULL for GET; sent at most once */
	size_t		body_len;
	const char *user_agent;
	const char *ca_file;		/* the CAs to trust, alone; NULL: the system's */
	const char *proxy;			/* NULL: none, whatever the environment says */
	long		connect_timeout_ms;
	long		timeout_ms;
	size_t		max_response;	/* bytes of body, after inflation */
} HttpSpec;

/*
 * Raises 0A000 where the libcurl that runs is too old, or where nothing could
 * interrupt its wait for a name server; http_open() looks too.  And what it is
 * ("libcurl 7.88.1, OpenSSL/3.0.15"), palloc'd.
 */
extern void http_check_library(void);
extern char *http_library(void);

/*
 * Open a set in a child of "parent".  When that context is reset or deleted,
 * by an abort too, the set's requests are taken down.
 */
extern HttpSet *http_open(MemoryContext parent);

/*
 * Start a request; everything in "spec" is copied.  "tag" comes back from
 * http_tag().  Raises 53000 class errors where a handle cannot be had and
 * 22023 where a header value holds CR or LF; whatever else goes wrong is in
 * the response.
 */
extern HttpRequest *http_start(HttpSet *set, const HttpSpec *spec, void *tag);
extern void *http_tag(HttpRequest *request);

/* A request of the set that has ended, or NULL; each is returned once. */
extern HttpRequest *http_take(HttpSet *set);

/*
 * Wait until a request of the set has ended, or timeout_ms have passed (-1: no
 * limit).  With nothing under way it just waits.
 */
extern void http_wait(HttpSet *set, long timeout_ms);

/*
 * The same for a process that others wake: true where its latch was set, which
 * is reset, and is for the caller to act upon.  With 0 it only lets the network
 * have its turn.  Needs no transaction, and none should be open.
 */
extern bool http_sleep(HttpSet *set, long timeout_ms);

extern HttpResponse *http_response(HttpRequest *request);

/*
 * The status came and the body broke: where the status is all that counts,
 * make it an answer with an empty body.
 */
extern void http_settle_for_status(HttpRequest *request);

/* The tracking id is not one to be shown. */
extern void http_forget_tracking_id(HttpRequest *request);

/* Free a request, under way or not, with its body. */
extern void http_free(HttpRequest *request);

/* Percent-encode for a query or a path segment; palloc'd. */
extern char *http_encode(const char *text);

/* Read an HTTP date; DT_NOBEGIN where it is none. */
extern TimestampTz http_parse_date(const char *text);

#endif							/* ACCESSREQ_HTTP_H */
