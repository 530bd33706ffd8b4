/*
 * sandbox.h
 *
 * What the files of the sandbox share: the types, and one section of
 * prototypes per file.  The program has one thread: nothing here is locked.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

/* ---- text.c: growable text, shared text, JSON strings, small helpers ---- */

typedef struct Text
{
	char	   *data;			/* always ends in a NUL that len does not count */
	size_t		len;
	size_t		cap;
} Text;

/*
 * A piece of text with a reference count: the bytes of one item.  It starts
 * with a comma, so that a page is its blobs one after the other between
 * brackets, less the first comma, and is sent without being copied.
 */
typedef struct Blob
{
	uint32_t	refs;
	uint32_t	len;			/* with the comma */
	char		data[];
} Blob;

/* How non-ASCII and HTML-sensitive characters are written in JSON. */
typedef enum JsonStyle
{
	JSON_PLAIN,					/* as they are, in UTF-8 */
	JSON_HTML_SAFE,				/* = < > & ' as \u003d and so on */
	JSON_ASCII					/* everything beyond ASCII as \uXXXX */
} JsonStyle;

extern void *xmalloc(size_t size);
extern void *xrealloc(void *p, size_t size);
extern char *xstrdup(const char *s);
extern char *xstrndup(const char *s, size_t len);

extern void text_add(Text *t, const char *s, size_t len);
extern void text_puts(Text *t, const char *s);
extern void text_printf(Text *t, const char *format,...) __attribute__((format(printf, 2, 3)));
extern void text_json(Text *t, const char *s, JsonStyle style);
extern void text_json_or_null(Text *t, const char *s, JsonStyle style);
extern void text_reset(Text *t);
extern void text_free(Text *t);

extern Blob *blob_new(const char *json, size_t len);
extern Blob *blob_ref(Blob *b);
extern void blob_unref(Blob *b);

extern cJSON *json_parse(const char *s, size_t len);
extern const char *json_text(const cJSON *object, const char *key);
extern bool json_number(const cJSON *object, const char *key, double *value);

extern uint64_t random_next(uint64_t *state);
extern uint32_t random_below(uint64_t *state, uint32_t n);
extern bool random_chance(uint64_t *state, uint32_t per_mille);
extern uint64_t hash_bytes(const char *s, size_t len, uint64_t seed);
extern void new_id(char out[33]);	/* 32 random hex digits */
extern void base64url(Text *out, const char *s, size_t len);
extern bool url_decode(char *s, bool plus_is_space);

/* ---- dates.c: microseconds since 1970 and their many spellings ---- */

#define NO_TIME INT64_MIN
#define USECS_PER_SEC INT64_C(1000000)
#define USECS_PER_DAY (INT64_C(86400) * USECS_PER_SEC)

typedef enum DateStyle
{
	DATE_MS,					/* 2024-05-06T07:08:09.123Z */
	DATE_US,					/* six digits */
	DATE_NO_ZONE,				/* milliseconds, no Z */
	DATE_NO_SECONDS				/* 2024-05-06T07:08Z */
} DateStyle;

extern void text_date(Text *t, int64_t usecs, DateStyle style);
extern char *date_ms(int64_t usecs, char out[32]);
extern int64_t date_round(int64_t usecs, DateStyle style);
extern int64_t date_parse(const char *s, bool strict);
extern char *date_http(int64_t usecs, char out[32]);
extern int64_t wall_clock(void);	/* this machine's, microseconds */
extern int64_t steady_ms(void); /* monotonic, milliseconds */

/* ---- intern.c: a number for each text that occurs often ---- */

extern uint32_t intern(const char *s);	/* 0 for NULL and "" */
extern uint32_t intern_find(const char *s); /* 0 when never seen */
extern const char *interned(uint32_t n);

/* ---- order.c: rows in sorted arrays ---- */

typedef enum ItemState
{
	STATE_OTHER,
	STATE_EXECUTING,
	STATE_VERIFYING				/* PROVISIONING_VERIFICATION_PENDING */
} ItemState;

typedef struct Item
{
	Blob	   *json;			/* what is served */
	char	   *id;				/* accountActivityItemId, "" where it has none */
	char	   *request_id;		/* accessRequestId or NULL */
	int64_t		created;
	int64_t		modified;		/* NO_TIME for null */
	uint64_t	shuffle;		/* order without sorters, and between ties */
	uint32_t	slot;			/* place in the list of all items */
	uint32_t	name;			/* these are interned */
	uint32_t	requester;
	uint32_t	requested_for;
	uint32_t	wanted;			/* the requested item's id */
	uint32_t	assigned[2];	/* owners of the pending approvals */
	uint8_t		state;			/* ItemState */
	bool		revoke;
} Item;

typedef enum Field
{
	FIELD_ID,
	FIELD_CREATED,
	FIELD_MODIFIED,
	FIELD_NAME,
	FIELD_REQUEST,
	FIELD_SHUFFLE
} Field;

typedef struct SortKey
{
	Field		field;
	bool		descending;
} SortKey;

#define MAX_SORT_KEYS 4

typedef struct Order
{
	SortKey		keys[MAX_SORT_KEYS];
	int			nkeys;
	bool		executing_only;
	bool		stale;			/* rebuilt at its next use */
	uint64_t	used;			/* the higher, the later */
	Item	  **rows;
	size_t		n;
	size_t		cap;
} Order;

typedef enum NullOrder
{
	NULLS_LARGEST,				/* as PostgreSQL: first when descending */
	NULLS_FIRST,
	NULLS_LAST
} NullOrder;

extern NullOrder null_order;
extern uint64_t orders_version; /* goes up when any order changes */

extern Order *order_get(const SortKey *keys, int nkeys, bool executing_only);
extern Order *order_by(Field field, bool executing_only);
extern void order_fill(Order *o, Item *const *items, size_t nitems);
extern int	order_compare(const Order *o, const Item *a, const Item *b);
extern int	order_compare_ids(const char *a, const char *b);
extern int64_t order_time(const Item *item, Field field, bool descending);
extern void orders_insert(Item *item);
extern void orders_remove(Item *item);
extern void orders_replace(Item *item, const Item *fresh);
extern void orders_stale(void);

/* ---- tenant.c: the rows, the clock and the options ---- */

typedef enum DateForms
{
	DATES_BARE = 1,
	DATES_QUOTED = 2
} DateForms;

typedef struct Options
{
	int			port;
	long		rows;
	uint64_t	seed;
	int			latency_ms;
	int			rate;			/* requests in 10 s, 0 = no limit */
	int			token_ttl;		/* seconds */
	int			pace_ms;
	double		open_percent;
	int			moving;
	bool		gzip;
	int			dates;			/* DateForms that filters take */
	bool		refuse_dates;	/* others are refused, else they match nothing */
	bool		natural;		/* ids sort without regard to case and dashes */
	int64_t		reference;		/* newest created of the seeded rows */
	bool		up_to_now;		/* that is the wall clock: nothing is dated after it */
	const char *client_secret;
	const char *access_token;
	const char *tls_cert;
	const char *tls_key;
} Options;

extern Options options;

extern const char *const date_forms[];	/* names of sets of DateForms, to NULL */

typedef struct Tenant
{
	Item	  **items;			/* all listed rows, in no order */
	size_t		n;
	size_t		cap;
	uint64_t	rng;			/* for what happens after the start */
} Tenant;

extern Tenant tenant;

extern int64_t tenant_now(void);	/* microseconds */
extern int64_t move_clock_ms(void); /* what scheduled steps go by */
extern void tenant_advance(int64_t ms);
extern void tenant_add(Item *item);
extern void tenant_remove(Item *item);
extern Item *tenant_find(const char *id);
extern size_t tenant_request(const char *request_id, Item ***rows);

/* ---- item.c: from JSON to an Item and back ---- */

extern Item *item_new(const char *json, size_t len);
extern void item_free(Item *item);
extern void item_index(Item *item, const cJSON *json);
extern bool item_same_index(const Item *a, const Item *b);
extern cJSON *item_open(const Item *item);
extern void item_save(Item *item, cJSON *json);
extern void item_put(const char *raw, size_t len, const cJSON *json);
extern void json_set(cJSON *object, const char *key, cJSON *value);
extern void json_touch(cJSON *object, const char *key, int64_t usecs);
extern cJSON *json_identity(const char *id);
extern void json_phase(cJSON *item, const char *name, const char *state, int64_t when);

/* ---- people.c: identities and the catalogue of requestable things ---- */

typedef struct Person
{
	char		id[33];
	char	   *name;
	uint32_t	number;			/* interned id */
	uint32_t	name_number;
} Person;

typedef struct Thing
{
	char		id[33];
	char	   *name;
	const char *type;
	const char *source;
	uint32_t	number;
	uint32_t	name_number;
} Thing;

#define ADMIN_PERSON 0
#define SELF_PERSON 1

extern void people_init(void);
extern int	people_count(void);
extern int	things_count(void);
extern const Person *person(int n);
extern const Thing *thing(int n);
extern const Person *person_by_id(const char *id);
extern const Thing *thing_by_id(const char *id);
extern void person_json(Text *t, int n);
extern void role_json(Text *t, int n);
extern int	roles_count(void);

/* ---- seed.c: random rows, the same for the same seed ---- */

extern void seed_rows(long rows);
extern void seed_new(long rows, bool moving);

/* ---- life.c: what happens later ---- */

extern void life_run(void);
extern int	life_pending(void);
extern void life_start(Item *item, int64_t delay_ms);
extern void life_move(Item *item);
extern void life_close(const char *request_id, bool completed, int64_t delay_ms);
extern Item *life_find_hidden(uint32_t requested_for, uint32_t wanted, bool revoke);
extern bool life_is_hidden(const char *request_id);
extern bool item_cancel(Item *item, const char *comment, const char *owner);

/* ---- answer.c: an answer before it is sent, and the shapes of errors ---- */

typedef struct Header
{
	char	   *name;
	char	   *value;
} Header;

#define MAX_HEADERS 16

typedef enum Delivery
{
	DELIVER,
	DELIVER_NOTHING,			/* close the connection */
	DELIVER_PART,				/* Content-Length of it all, then close */
	DELIVER_SLOWLY,
	DELIVER_FILLER,				/* as many bytes as are asked for */
	DELIVER_ENDLESS,			/* the same in chunks, their sum not announced */
	DELIVER_SLOW_HEADERS,
	DELIVER_NEVER				/* keep the connection open and say nothing */
} Delivery;

typedef struct Answer
{
	int			status;
	const char *content_type;
	Text		body;
	Blob	  **items;			/* where not NULL: a page, instead of body */
	size_t		nitems;
	Header		headers[MAX_HEADERS];
	int			nheaders;
	bool		no_gzip;
	Delivery	delivery;
	int64_t		bytes;			/* for the delivery */
	int			delay_ms;
	int			hold_ms;		/* how long the finished answer is held back */
} Answer;

extern void answer_header(Answer *a, const char *name, const char *value);
extern void answer_clear(Answer *a);
extern void answer_free(Answer *a);
extern void answer_error(Answer *a, int status, const char *format,...)
			__attribute__((format(printf, 3, 4)));
extern void answer_html(Answer *a, int status);
extern void answer_json(Answer *a, int status, cJSON *json);
extern size_t answer_length(const Answer *a);
extern const char *status_words(int status);

/* ---- server.c: connections ---- */

typedef enum Api
{
	API_BETA,
	API_V3,
	API_V2024,
	API_V2025,
	API_V2026,
	API_V1,
	API_TOKEN,					/* /oauth/token: no version */
	API_NONE
} Api;

extern const char *const api_names[];

typedef struct Caller
{
	char		client_id[128];
	const char *identity;		/* NULL: no user behind the token */
	bool		self_only;
	bool		old_tenant;
} Caller;

typedef struct Request
{
	const char *method;
	char	   *uri;			/* as it came */
	char	   *path;			/* without the query, not decoded */
	char	   *query;			/* NULL or what follows the question mark */
	char	   *user_agent;
	char	   *authorization;
	char	   *content_type;
	char	   *experimental;
	bool		takes_gzip;
	Text		body;
	bool		too_large;
	bool		admin;
	Api			api;
	const char *resource;		/* "access-requests/cancel", version removed */
	char		resource_text[256];
	Caller		caller;
	const char *fault;			/* name of the fault that hit it */
	char		tracking_id[33];
	int64_t		arrived;		/* wall clock */
	int64_t		arrived_ms;		/* steady */
	unsigned	connection;
	uint64_t	entry;			/* its number in the journal */
} Request;

typedef struct Param
{
	char	   *name;
	char	   *value;
} Param;

#define MAX_PARAMS 64

typedef struct Params
{
	char	   *copy;
	Param		list[MAX_PARAMS];
	int			n;
	bool		bad;			/* a percent sign without its digits */
} Params;

extern void params_parse(Params *p, const char *text, bool form);
extern const char *params_get(const Params *p, const char *name);
extern void params_free(Params *p);

extern int	server_start(void);	/* returns the port, -1 after a message */
extern void server_run(volatile int *stop);
extern void server_stop(void);
extern void server_release_hung(void);

/* ---- route.c: which call it is, and who may make it ---- */

extern void route(Request *r, Answer *a);
extern void route_parse(Request *r);

/* ---- status.c, filter.c ---- */

typedef enum Op
{
	OP_EQ, OP_NE, OP_GT, OP_GE, OP_LT, OP_LE, OP_SW, OP_IN
} Op;

typedef struct Pred
{
	Field		field;
	Op			op;
	char	   *text;
	int64_t		time;
	char	  **list;
	size_t		nlist;
} Pred;

#define MAX_PREDS 32

typedef struct Filter
{
	Pred		preds[MAX_PREDS];
	int			n;
	char		error[256];
} Filter;

extern bool filter_parse(Filter *f, const char *s, Api api);
extern void filter_free(Filter *f);
extern int	pred_side(const Pred *p, const Item *item, bool descending);
extern bool pred_match(const Pred *p, const Item *item);

extern void status_list(Request *r, Answer *a);
extern bool page_params(const Params *p, Answer *a, int64_t *limit, int64_t *offset, bool *count);

/* ---- create.c, calls.c, config.c, lists.c ---- */

extern void call_create(Request *r, Answer *a);
extern void call_cancel(Request *r, Answer *a);
extern void call_bulk_cancel(Request *r, Answer *a);
extern void call_close(Request *r, Answer *a);
extern void call_get_config(Request *r, Answer *a);
extern void call_put_config(Request *r, Answer *a);
extern void call_identities(Request *r, Answer *a);
extern void call_roles(Request *r, Answer *a);
extern void call_public_identities_config(Request *r, Answer *a);

/* ---- token.c ---- */

extern void token_fetch(Request *r, Answer *a);
extern bool token_check(Request *r);
extern void token_revoke_all(void);
extern void caller_from_client(Caller *c, const char *client_id);

/* ---- limit.c: the rate limit ---- */

extern int	rate_retry_after_s; /* 0: what the window says */
extern bool rate_retry_as_date;
extern bool rate_retry_grows;	/* 60, 300, 600, 1200 s to who goes on */
extern void limit_count(const Request *r);
extern bool limit_take(Request *r, Answer *a);
extern void limit_json(cJSON *out);
extern void limit_reset(void);

/* ---- fault.c ---- */

typedef struct Fault
{
	int			id;
	char	   *method;			/* NULL: any */
	char	   *path;			/* part of path and query; NULL: any */
	const char *kind;
	int64_t		skip;
	int64_t		count;			/* below 0: for ever */
	int64_t		hits;
	int			status;
	char	   *body;
	char	   *shape;			/* of an error */
	cJSON	   *headers;
	int			delay_ms;
	int64_t		bytes;
	int			index;
	int			users;			/* requests under way that it hit */
	bool		deleted;
	struct Fault *next;
} Fault;

extern Fault *fault_take(const Request *r);
extern void fault_release(Fault *f);
extern bool fault_before(const Fault *f, Request *r, Answer *a);
extern void fault_after(const Fault *f, Answer *a);
extern bool fault_add(const cJSON *spec, const char **error, int *id);
extern void fault_clear(void);
extern void fault_list(cJSON *out);

/* ---- journal.c: what was asked ---- */

extern void journal_begin(Request *r);
extern void journal_end(const Request *r, int status, bool delivered);
extern void journal_connection(bool opened);
extern void journal_first_use(void);
extern void journal_list(Text *out, uint64_t since);
extern void journal_clear(void);
extern void journal_stats(cJSON *out);

/* ---- admin.c ---- */

extern void admin_call(Request *r, Answer *a);

#endif							/* SANDBOX_H */
