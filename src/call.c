/*-------------------------------------------------------------------------
 *
 * call.c
 *	  One call of the API, from the budget to the answer.
 *
 * A call goes through these states:
 *
 *		waiting (for the budget, a Retry-After, a pause before a retry)
 *		fetching the token, or waiting for another call that fetches it
 *		sent
 *		ended
 *
 * What may be sent again: a GET and a PUT after any failure that can pass, up
 * to accessreq.max_retries; a POST only where it cannot have been accepted: no
 * connection, 429, 401.
 *
 * A 2xx to a write is not yet success, see take_answer().  A PUT whose answer does
 * not tell goes back to waiting, as the GET that reads back what it has put.
 *
 * A session's call has until request_timeout for all of it.  A pull is
 * patient: its waits for the budget and for Retry-After do not count.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "accessreq.h"
#include "call.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "json.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "redact.h"
#include "token.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Pauses before retries: doubled each time, with up to half as jitter. */
#define FIRST_PAUSE_US (200 * INT64CONST(1000))
#define MAX_PAUSE_US (10 * USECS_PER_SEC)

/* How often a patient call takes a 429 before it gives up as an error. */
#define MAX_PATIENT_LIMITED 50

/*
 * Requests at once, of all tenants of a process: each may take a socket and one
 * more of the resolver and of a second address, and http.c watches so many.
 */
#define MAX_UNDER_WAY 32

/* A Retry-After that cannot be read. */
#define DEFAULT_RETRY_AFTER_US (10 * USECS_PER_SEC)

/* And the longest that is believed. */
#define MAX_RETRY_AFTER_US USECS_PER_DAY

/*
 * A request that changes something does not leave with less than this of its
 * time, or a tenth of all of it: its answer would be lost for nothing.
 */
#define MIN_TIME_LEFT_US USECS_PER_SEC

typedef enum CallState
{
	CALL_WAITING,				/* until not_before */
	CALL_WAITING_FOR_TOKEN,		/* another call fetches it */
	CALL_FETCHING_TOKEN,
	CALL_SENT,
	CALL_ENDED
} CallState;

struct CallSet
{
	MemoryContext cxt;
	HttpSet    *http;			/* NULL before the first call */
	bool		stopped;		/* nothing leaves any more */
	LimiterKey	yielded[CALL_MAX_YIELDED];	/* budgets that actions wait for */
	int			nyielded;
	dlist_head	calls;			/* that were not returned yet */
	CallCounts	counts;
	int64		left_at;		/* when this file was last left; 0: never */
};

struct Call
{
	dlist_node	node;
	CallSet    *set;
	MemoryContext cxt;
	CallSpec	spec;
	char	   *url;
	CallState	state;
	bool		token_only;		/* ends with the token */
	bool		returned;		/* no longer in the set's list */
	bool		fetches;		/* others may wait for its token */
	bool		was_sent;		/* an earlier try may have arrived */
	bool		reads_back;		/* it was PUT, and is looked for by a GET */
	int64		not_before;
	int64		held_since;		/* others are in the way; 0: none */
	int64		deadline;		/* for everything; moves for a patient call */
	int			retries;
	int			limited;		/* 429s so far */
	int64		limited_us;		/* what the last of them asked for */
	bool		renewed;		/* has a 401 been answered by a new token? */
	uint64		token_serial;
	char	   *secret;			/* token or secret that was sent last, or NULL */
	MemoryContextCallback forget_secret;
	LimiterKey	charged;		/* the budget that its last request was taken from */
	HttpRequest *request;
	ApiError   *error;
};

static bool deprecation_warned = false;

static int64
now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/* ------------------------------------------------------------------ lifetime */

CallSet *
call_open(MemoryContext parent)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "accessreq calls",
											  ALLOCSET_SMALL_SIZES);
	CallSet    *set = MemoryContextAllocZero(cxt, sizeof(CallSet));

	set->cxt = cxt;
	dlist_init(&set->calls);
	return set;
}

const CallCounts *
call_counts(CallSet *set)
{
	return &set->counts;
}

void *
call_tag(const Call *call)
{
	return call->spec.tag;
}

const ApiError *
call_error(const Call *call)
{
	return call->error;
}

HttpResponse *
call_response(const Call *call)
{
	return call->request ? http_response(call->request) : NULL;
}

/* A reset callback: the copy of a secret is zeroed, however the call ends. */
static void
zero_secret(void *arg)
{
	Call	   *call = (Call *) arg;

	if (call->secret != NULL)
		explicit_bzero(call->secret, strlen(call->secret));
	call->secret = NULL;
}

/* Keep what is sent, which is the call's own copy, to know it again in the answer. */
static void
keep_secret(Call *call, char *secret)
{
	zero_secret(call);
	call->secret = secret;
}

static void
drop_request(Call *call)
{
	HttpRequest *request = call->request;

	call->request = NULL;
	if (request != NULL)
		http_free(request);
}

/* -------------------------------------------------------------------- starting */

static bool
is_get(const CallSpec *spec)
{
	return strcmp(spec->method, "GET") == 0;
}

/* A POST: what it did is not undone by doing it again. */
static bool
changes_once(const CallSpec *spec)
{
	return strcmp(spec->method, "POST") == 0;
}

void
call_check_may_change(const Tenant *tenant, const char *what)
{
	call_check_not_read_only(tenant, what);
	PreventCommandDuringRecovery("a call that changes the tenant");
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("could not %s in a read-only transaction", what)));
}

void
call_check_not_read_only(const Tenant *tenant, const char *what)
{
	if (tenant->read_only)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("could not %s: server \"%s\" is read-only", what, tenant->server),
				 errdetail("Its option read_only is on: only requests that read leave for it.")));
}

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

static Call *
new_call(CallSet *set, const CallSpec *spec)
{
	MemoryContext cxt = AllocSetContextCreate(set->cxt, "accessreq call",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Call	   *call = palloc0(sizeof(Call));
	const Tenant *t = spec->tenant;

	if (set->http == NULL)
		set->http = http_open(set->cxt);
	call->set = set;
	call->cxt = cxt;
	call->forget_secret.func = zero_secret;
	call->forget_secret.arg = call;
	MemoryContextRegisterResetCallback(cxt, &call->forget_secret);
	call->spec = *spec;
	call->spec.path = copy_text(spec->path);
	call->spec.body = copy_text(spec->body);
	call->spec.header = copy_text(spec->header);
	call->spec.what = copy_text(spec->what);
	call->url = psprintf("%s%s", t->base_url, spec->path ? spec->path : "");
	call->state = CALL_WAITING;
	call->not_before = now_us();
	call->deadline = call->not_before + tenant_request_timeout(t) * INT64CONST(1000);
	dlist_push_tail(&set->calls, &call->node);
	MemoryContextSwitchTo(old);
	return call;
}

Call *
call_start(CallSet *set, const CallSpec *spec)
{
	if (!is_get(spec))
		call_check_may_change(spec->tenant, spec->what);
	return new_call(set, spec);
}

/* ---------------------------------------------------------------------- ending */

static void wake_token_waiters(Call *fetcher);

static void
end_call(Call *call, ApiError *error)
{
	call->error = error;
	call->state = CALL_ENDED;
	/* others take the error as it is */
	wake_token_waiters(call);
	/* whatever kept it from being read back says nothing of the PUT */
	if (error != NULL && call->reads_back)
		api_error_mark_unread(error);
}

static void
go_on_now(Call *call)
{
	call->state = CALL_WAITING;
	call->not_before = now_us();
}

/*
 * The fetch of a token has ended, or is given up: the set's calls that wait
 * for it go on, or fail with it.  One wrong secret is one failed request, not
 * one for each call.
 */
static void
wake_token_waiters(Call *fetcher)
{
	dlist_iter	iter;

	if (!fetcher->fetches)
		return;
	fetcher->fetches = false;
	dlist_foreach(iter, &fetcher->set->calls)
	{
		Call	   *other = dlist_container(Call, node, iter.cur);

		if (other->state != CALL_WAITING_FOR_TOKEN ||
			other->spec.tenant->umid != fetcher->spec.tenant->umid)
			continue;
		if (fetcher->state == CALL_ENDED && fetcher->error != NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(other->cxt);

			other->limited_us = fetcher->limited_us;
			end_call(other, api_error_copy(fetcher->error));
			MemoryContextSwitchTo(old);
		}
		else
			go_on_now(other);
	}
}

void
call_free(Call *call)
{
	drop_request(call);
	if (!call->returned)
		dlist_delete(&call->node);
	wake_token_waiters(call);
	MemoryContextDelete(call->cxt);
}

/*
 * Wait before going on: true, or false where the deadline forbids it.  A
 * patient call's deadline moves along where the wait is not its own fault.
 */
static bool
wait_us(Call *call, int64 us, bool excused)
{
	int64		now = now_us();

	if (excused && call->spec.patient)
		call->deadline = Max(call->deadline, now) + us;
	else if (now + us >= call->deadline)
		return false;
	call->state = CALL_WAITING;
	call->not_before = now + us;
	return true;
}

/* ------------------------------------------------------------------- answers */

/* Retry-After: seconds, or a date that the answer's own clock is compared to. */
static int64
retry_after_us(const HttpResponse *response)
{
	char	   *end;
	long		seconds = strtol(response->retry_after, &end, 10);
	TimestampTz date;
	int64		us = DEFAULT_RETRY_AFTER_US;

	if (end != response->retry_after && *end == '\0' && seconds >= 0)
		us = Min((int64) seconds, MAX_RETRY_AFTER_US / USECS_PER_SEC) * USECS_PER_SEC;
	else if ((date = http_parse_date(response->retry_after)) != DT_NOBEGIN)
		us = date - (response->date != DT_NOBEGIN ? response->date : GetCurrentTimestamp());
	return Max(Min(us, MAX_RETRY_AFTER_US), 0);
}

/* The pause before a retry; a 503 may say how long it wants. */
static int64
pause_us(const Call *call, const HttpResponse *response)
{
	int64		pause = FIRST_PAUSE_US << Min(call->retries, 6);

	if (response->retry_after[0] != '\0')
		return retry_after_us(response);
	pause = Min(pause, MAX_PAUSE_US);
	return pause + (int64) (pg_prng_double(&pg_global_prng_state) * (pause / 2));
}

/* A wait that the tenant asks for, and that the caller would rather plan. */
static bool
is_too_long(const Call *call, int64 us)
{
	return call->spec.patience_us > 0 && us > call->spec.patience_us;
}

/*
 * A 429, of the API or of the token endpoint, which is booked where it came
 * from.  A pull waits for as long as it says; a session's call waits once, if
 * that fits into what is left of its time.
 */
static bool
handle_limited(Call *call, const HttpResponse *response, bool token)
{
	int64		us = retry_after_us(response);
	bool		may = call->spec.patient ? call->limited < MAX_PATIENT_LIMITED :
		call->limited < 1;

	if (token)
		limiter_block_token(call->spec.tenant, us);
	else
		limiter_block(call->spec.tenant, us);
	call->limited++;
	if (may && !is_too_long(call, us) && wait_us(call, us, true))
	{
		call->set->counts.limited++;
		if (call->spec.counts != NULL)
			call->spec.counts->limited++;
		return true;
	}
	call->limited_us = us;
	end_call(call, api_error_limited(call->spec.tenant, call->spec.what, us, true));
	return false;
}

/* May this failure pass by itself? */
static bool
is_transient(const HttpResponse *response)
{
	switch (response->failure)
	{
		case HTTP_ANSWERED:
			return response->status >= 500 || response->status == 408;
		case HTTP_FAILED_RESOLVE:
		case HTTP_FAILED_CONNECT:
		case HTTP_FAILED_PROXY:
		case HTTP_FAILED_TIMEOUT:
		case HTTP_FAILED_BROKEN:
			return true;
		case HTTP_FAILED_TLS:
		case HTTP_FAILED_TOO_LARGE:
		case HTTP_FAILED_LOCAL:
			return false;
	}
	return false;
}

static bool
may_retry(const Call *call, const HttpResponse *response, bool token)
{
	if (call->retries >= accessreq_max_retries || !is_transient(response))
		return false;
	/* fetching a token twice does no harm */
	if (token || !changes_once(&call->spec))
		return true;
	return response->failure != HTTP_ANSWERED && !response->sent;
}

bool
call_repeats_secret(const Call *call, const char *text)
{
	return redact_repeats(text, call->secret);
}

static void
drop_text(char **text)
{
	if (*text != NULL)
		explicit_bzero(*text, strlen(*text));
	*text = NULL;
}

/* Gateways repeat what they refuse: not in a message, where it is the token. */
static void
hide_secret(const Call *call, ApiError *error)
{
	/* without an answer they are the library's */
	bool		hide = error->status != 0 && call_repeats_secret(call, error->detail);

	if (call_repeats_secret(call, error->tracking_id))
		drop_text(&error->tracking_id);
	if (!hide)
		return;
	drop_text(&error->detail);
	error->detail = psprintf("The tenant's words are left out, because they repeat a secret.%s",
								 error->tracking_id ?
								 psprintf(" Tracking id: %s.", error->tracking_id) : "");
}

/* A refusal means something else for each endpoint. */
static void
add_endpoint_hint(const Call *call, ApiError *error, bool token)
{
	if (token || error->hint != NULL || error->outcome != API_REFUSED)
		return;
	if (error->status == 400)
		error->hint = copy_text(call->spec.refused_hint);
	else if (error->status == 404)
		error->hint = copy_text(call->spec.unknown_hint);
}

/* Does a refusal tell that the credential is not, or no longer, the client's? */
static bool
proves_nothing(const Call *call, const HttpResponse *response, bool token)
{
	if (token)
		return response->status == 400 || response->status == 401 || response->status == 403;
	return response->status == 401 && call->spec.tenant->credential == CREDENTIAL_TOKEN;
}

/*
 * An answer that is no success, to the call or to the fetch of its token.
 * Leaves the call waiting for another try, or ended with its error.
 */
static void
handle_failure(Call *call, bool token)
{
	const HttpResponse *response = http_response(call->request);
	const Tenant *t = call->spec.tenant;
	bool		answered = response->failure == HTTP_ANSWERED;
	bool		was_sent;
	bool		told;			/* how long to wait */
	int64		pause;
	ApiError   *error;

	if (answered && response->status == 429)
	{
		if (handle_limited(call, response, token))
			drop_request(call);
		return;
	}
	if (answered && proves_nothing(call, response, token))
		limiter_refused(t);
	if (answered && response->status == 401 && !token && !call->renewed &&
		t->credential != CREDENTIAL_TOKEN)
	{
		token_drop(t, call->token_serial);
		call->renewed = true;
		drop_request(call);
		go_on_now(call);
		return;
	}
	was_sent = !token && response->sent;
	pause = pause_us(call, response);
	told = response->retry_after[0] != '\0';
	if (may_retry(call, response, token) && !(told && is_too_long(call, pause)) &&
		wait_us(call, pause, told))
	{
		call->retries++;
		call->was_sent = call->was_sent || was_sent;
		drop_request(call);
		return;
	}
	call->limited_us = told ? pause : 0;
	/* it may have been the last of several tries */
	call->was_sent = call->was_sent || (was_sent && !answered);
	error = api_error_describe(t, token ? psprintf("fetch a token to %s", call->spec.what) :
							   call->spec.what, response,
							   changes_once(&call->spec), token);
	add_endpoint_hint(call, error, token);
	/* of a token endpoint no words of its own are there to begin with */
	if (!token)
		hide_secret(call, error);
	end_call(call, error);
}

static void
handle_token_answer(Call *call)
{
	HttpResponse *response = http_response(call->request);
	bool		ok = response->failure == HTTP_ANSWERED && response->status == 200;

	if (ok && token_accept(call->spec.tenant, response, call->secret))
	{
		limiter_granted(call->spec.tenant, call->charged);
		drop_request(call);
		wake_token_waiters(call);
		if (call->token_only)
			end_call(call, NULL);
		else
			go_on_now(call);
	}
	else if (ok)
	{
		end_call(call, api_error_no_token(call->spec.tenant,
										  psprintf("fetch a token to %s", call->spec.what),
										  response));
	}
	else
		handle_failure(call, true);
}

static void
warn_deprecated(const Call *call, const HttpResponse *response)
{
	if (!response->deprecated || deprecation_warned)
		return;
	deprecation_warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING_DEPRECATED_FEATURE),
			 errmsg("the tenant of server \"%s\" says that API version \"%s\" is deprecated",
					call->spec.tenant->server, tenant_api_names[call->spec.tenant->api]),
			 call->spec.tenant->api < API_V2024 ?
			 errhint("Change option api of the server; v2024 has every call.") :
			 errhint("The answer was to the call that tried to %s. A later year, or v1, as option api of the server may have it undeprecated.",
					 call->spec.what)));
}

/* As far as its headers tell; none is not meant to tell anything. */
static bool
may_be_json(const HttpResponse *response)
{
	const char *json = "application/json";

	return response->content_type[0] == '\0' ||
		pg_strncasecmp(response->content_type, json, strlen(json)) == 0;
}

/*
 * A status whose body broke off is an answer all the same: a refusal stays
 * one, and what was accepted must not be reported as lost.  Only the answer to
 * a request that reads is worth nothing without its body, and a page that would
 * not be an answer if it were whole.
 */
static bool
status_is_enough(const Call *call, const HttpResponse *response)
{
	if (response->failure == HTTP_ANSWERED || response->status < 200)
		return false;
	return response->status >= 300 ||
		(call->state == CALL_SENT && changes_once(&call->spec) && may_be_json(response));
}

/* -------------------------------------------------------- what a 2xx is worth */

static bool
is_blank(const HttpResponse *response)
{
	return strspn(response->body, " \t\r\n") == response->body_len;
}

/* NULL where the body is no JSON. */
static const JsonValue *
parse_answer(const HttpResponse *response, MemoryContext cxt)
{
	const char *problem;

	json_clean(response->body, response->body_len);
	return json_parse(response->body, response->body_len, cxt, &problem);
}

static bool
is_accepted(const Call *call, const HttpResponse *response, MemoryContext cxt)
{
	return response->status == call->spec.accepted &&
		(is_blank(response) || parse_answer(response, cxt) != NULL);
}

/* Is what was PUT in the answer: its keys; and, where it is read back, its values? */
static bool
shows_what_was_put(const Call *call, const HttpResponse *response, MemoryContext cxt)
{
	const char *problem;

	return (call->reads_back || response->status == call->spec.accepted) &&
		json_holds(parse_answer(response, cxt),
				   json_parse(call->spec.body, strlen(call->spec.body), cxt, &problem),
				   call->reads_back);
}

/* The PUT may have been carried out, and the answer does not say so. */
static void
read_back(Call *call)
{
	call->reads_back = true;
	call->was_sent = true;
	call->retries = 0;
	call->limited = 0;
	drop_request(call);
	go_on_now(call);
}

static void
end_unclear(Call *call, const HttpResponse *response)
{
	ApiError   *error = call->reads_back ?
		api_error_not_put(call->spec.tenant, call->spec.what, response) :
		api_error_unclear(call->spec.tenant, call->spec.what, response, call->spec.accepted);

	call->was_sent = true;
	hide_secret(call, error);
	end_call(call, error);
}

/*
 * An answer with a status of success.  Of what reads, whoever asked judges the
 * body; a write was carried out only where the answer says so.
 */
static void
take_answer(Call *call, const HttpResponse *response)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq answer",
											  ALLOCSET_SMALL_SIZES);
	bool		put = strcmp(call->spec.method, "PUT") == 0;
	bool		taken = is_get(&call->spec) ||
		(put ? shows_what_was_put(call, response, cxt) : is_accepted(call, response, cxt));

	MemoryContextDelete(cxt);
	if (taken && call->spec.tenant->credential == CREDENTIAL_TOKEN)
		limiter_granted(call->spec.tenant, call->charged);
	if (taken)
	{
		warn_deprecated(call, response);
		end_call(call, NULL);
	}
	else if (put && !call->reads_back)
		read_back(call);
	else
		end_unclear(call, response);
}

static void
handle_ended_request(HttpRequest *request)
{
	Call	   *call = http_tag(request);
	const HttpResponse *response = http_response(request);
	MemoryContext old = MemoryContextSwitchTo(call->cxt);

	/* it goes into logs and tables, of successes too */
	if (call_repeats_secret(call, response->tracking_id))
		http_forget_tracking_id(request);
	if (status_is_enough(call, response))
		http_settle_for_status(request);
	if (call->state == CALL_FETCHING_TOKEN)
		handle_token_answer(call);
	else if (response->failure == HTTP_ANSWERED &&
			 response->status >= 200 && response->status <= 299)
		take_answer(call, response);
	else
		handle_failure(call, false);
	MemoryContextSwitchTo(old);
}

/* -------------------------------------------------------------------- sending */

static void
send_request(Call *call, HttpSpec *spec)
{
	const Tenant *t = call->spec.tenant;
	int64		left_ms = (call->deadline - now_us()) / 1000;

	spec->user_agent = t->user_agent;
	spec->ca_file = t->ca_file;
	spec->proxy = t->proxy;
	spec->connect_timeout_ms = tenant_connect_timeout(t);
	spec->timeout_ms = Max(left_ms, 1);
	spec->max_response = (size_t) accessreq_max_response_size * 1024;
	call->set->counts.requests++;
	if (call->spec.counts != NULL)
		call->spec.counts->requests++;
	call->request = http_start(call->set->http, spec, call);
}

static bool
token_is_being_fetched(const Call *call)
{
	dlist_iter	iter;

	dlist_foreach(iter, &call->set->calls)
	{
		const Call *other = dlist_container(Call, node, iter.cur);

		if (other != call && other->state == CALL_FETCHING_TOKEN &&
			other->spec.tenant->umid == call->spec.tenant->umid)
			return true;
	}
	return false;
}

static void
send_token_request(Call *call)
{
	HttpSpec	spec = {0};

	call->fetches = true;
	keep_secret(call, token_spec(call->spec.tenant, &spec));
	call->state = CALL_FETCHING_TOKEN;
	send_request(call, &spec);
	token_spec_done(&spec);
}

static void
send_call(Call *call, const char *token)
{
	HttpSpec	spec = {0};

	spec.method = call->reads_back ? "GET" : call->spec.method;
	spec.url = call->url;
	spec.bearer = token;
	spec.header = call->spec.header;
	spec.body = call->reads_back ? NULL : call->spec.body;
	if (spec.body != NULL)
	{
		spec.body_len = strlen(spec.body);
		spec.content_type = "application/json";
	}
	keep_secret(call, pstrdup(token));
	call->state = CALL_SENT;
	send_request(call, &spec);
}

/*
 * What goes wrong here while sending (the file of the secret cannot be read,
 * memory) is the call's error, like all that goes wrong later: whoever sends
 * batches must hear of it for one of them.  Nothing of the database is touched
 * in between, so catching needs no subtransaction; a file is closed by who opens
 * it.
 */
static void
send_next(Call *call, const char *token)
{
	MemoryContext cxt = CurrentMemoryContext;

	PG_TRY();
	{
		if (token == NULL)
			send_token_request(call);
		else
			send_call(call, token);
	}
	PG_CATCH();
	{
		ErrorData  *data;
		ApiError   *error;

		MemoryContextSwitchTo(cxt);
		data = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(data->sqlerrcode) ==
			ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION))
			PG_RE_THROW();
		FlushErrorState();
		error = palloc0(sizeof(ApiError));
		error->outcome = API_NOT_SENT;
		error->sqlstate = data->sqlerrcode;
		error->message = data->message;
		error->detail = data->detail;
		error->hint = data->hint;
		end_call(call, error);
	}
	PG_END_TRY();
}

/* Is there too little time left to send anything?  Then the call has ended. */
static bool
time_is_up(Call *call)
{
	const Tenant *t = call->spec.tenant;
	int64		left = call->deadline - now_us();
	int64		floor = changes_once(&call->spec) ?
		Min(MIN_TIME_LEFT_US, tenant_request_timeout(t) * INT64CONST(100)) : 0;
	HttpResponse nothing = {0};

	if (left > floor)
		return false;
	nothing.failure = HTTP_FAILED_TIMEOUT;
	strlcpy(nothing.error, "No time was left for sending it", sizeof(nothing.error));
	end_call(call, api_error_describe(t, call->spec.what, &nothing,
									  changes_once(&call->spec), false));
	return true;
}

/* How much of a budget such calls leave to others. */
static int
left_to_others(CallShare share, int rate_limit, bool actions_wait)
{
	if (share == CALL_OF_ACTION)
		return Max(rate_limit / 10, 1);
	if (share == CALL_OF_PULL && actions_wait)
		return rate_limit / 2;
	return 0;
}

/* Has the caller a token that was granted to his credential? */
static bool
holds_granted(const Tenant *tenant)
{
	uint64		serial;

	return tenant->credential != CREDENTIAL_TOKEN && token_get(tenant, &serial) != NULL;
}

int64
call_prepay(const Tenant *tenant, CallShare share, LimiterKey *charged)
{
	return limiter_take(tenant, left_to_others(share, tenant->rate_limit, false),
						holds_granted(tenant), charged);
}

void
call_pay_back(LimiterKey charged, int n)
{
	if (n > 0)
		limiter_give_back(charged, n);
}

void
call_yield(CallSet *set, const LimiterKey *budgets, int n)
{
	set->nyielded = Min(n, CALL_MAX_YIELDED);
	memcpy(set->yielded, budgets, sizeof(LimiterKey) * set->nyielded);
}

static bool
actions_wait(const Call *call)
{
	LimiterKey	key;

	if (call->set->nyielded == 0)
		return false;
	key = limiter_key(call->spec.tenant);
	for (int i = 0; i < call->set->nyielded; i++)
	{
		if (call->set->yielded[i].a == key.a && call->set->yielded[i].b == key.b)
			return true;
	}
	return false;
}

/* 0: it may leave now; else how long to wait, and in *told: by the tenant's word. */
static int64
take_from_budget(Call *call, const char *token, bool *told)
{
	const Tenant *t = call->spec.tenant;
	int64		wait = token == NULL ? limiter_token_blocked(t) : 0;

	*told = wait > 0;
	if (wait > 0)
		return wait;
	if (call->spec.prepaid)
	{
		/* this request; what is sent again is taken out like any other */
		call->spec.prepaid = false;
		call->charged = limiter_key(t);
		return 0;
	}
	wait = limiter_take(t, left_to_others(call->spec.share, t->rate_limit, actions_wait(call)),
						token != NULL && t->credential != CREDENTIAL_TOKEN, &call->charged);
	*told = wait > 0 && limiter_blocked(t) > 0;
	return wait;
}

void
call_stop_sending(CallSet *set)
{
	set->stopped = true;
}

static void
end_unsent(Call *call)
{
	ApiError   *error = palloc0(sizeof(ApiError));

	error->outcome = API_NOT_SENT;
	error->sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	error->message = psprintf("could not %s on server \"%s\": the worker leaves",
							  call->spec.what, call->spec.tenant->server);
	end_call(call, error);
}

/* Let a waiting call whose time has come take its next step. */
static void
advance(Call *call)
{
	uint64		serial;
	const char *token = token_get(call->spec.tenant, &serial);
	int64		wait;
	bool		told;

	if (call->set->stopped)
	{
		end_unsent(call);
		return;
	}
	if (token != NULL && call->token_only)
	{
		end_call(call, NULL);
		return;
	}
	if (token == NULL && token_is_being_fetched(call))
	{
		call->state = CALL_WAITING_FOR_TOKEN;
		return;
	}
	if (time_is_up(call))
		return;
	wait = take_from_budget(call, token, &told);
	if (wait > 0)
	{
		if ((told && is_too_long(call, wait)) || !wait_us(call, wait, true))
		{
			call->limited_us = told ? wait : 0;
			end_call(call, api_error_limited(call->spec.tenant, call->spec.what, wait, told));
		}
		return;
	}
	call->token_serial = serial;
	send_next(call, token);
}

/* -------------------------------------------------------------------- waiting */

static bool
is_under_way(const Call *call)
{
	return call->state == CALL_SENT || call->state == CALL_FETCHING_TOKEN;
}

static int
count_under_way(CallSet *set)
{
	dlist_iter	iter;
	int			n = 0;

	dlist_foreach(iter, &set->calls)
		n += is_under_way(dlist_container(Call, node, iter.cur));
	return n;
}

int
call_room(CallSet *set)
{
	dlist_iter	iter;
	int			n = MAX_UNDER_WAY;

	dlist_foreach(iter, &set->calls)
		n -= dlist_container(Call, node, iter.cur)->state != CALL_ENDED;
	return Max(n, 0);
}

/*
 * Let every call that can go on do so.  Returns when the next one can, in
 * milliseconds from now, or -1 where none waits for the clock.
 */
static long
advance_all(CallSet *set)
{
	dlist_iter	iter;
	int64		next = -1;
	int64		now = now_us();
	int			under_way = count_under_way(set);

	dlist_foreach(iter, &set->calls)
	{
		Call	   *call = dlist_container(Call, node, iter.cur);
		MemoryContext old;

		/* one that ends lets another go */
		if (under_way >= MAX_UNDER_WAY && call->state == CALL_WAITING && call->not_before <= now)
		{
			if (call->held_since == 0)
				call->held_since = now;
			continue;
		}
		if (call->state == CALL_WAITING && (call->not_before <= now || set->stopped))
		{
			if (call->held_since != 0 && call->spec.patient)
				call->deadline += now - call->held_since;
			call->held_since = 0;
			old = MemoryContextSwitchTo(call->cxt);
			advance(call);
			MemoryContextSwitchTo(old);
			under_way += is_under_way(call);
		}
		if (call->state == CALL_WAITING)
			next = next < 0 ? call->not_before : Min(next, call->not_before);
	}
	return next < 0 ? -1 : (long) (Max(next - now, 0) / 1000 + 1);
}

/*
 * A patient caller does other work between its visits: storing a page, waiting
 * for a lock.  That is not the tenant's silence, so it moves the deadlines of
 * what is under way.  libcurl's own limit may strike all the same; then the
 * request is sent once more.
 */
static void
excuse_absence(CallSet *set)
{
	int64		away = set->left_at > 0 ? now_us() - set->left_at : 0;
	dlist_iter	iter;

	dlist_foreach(iter, &set->calls)
	{
		Call	   *call = dlist_container(Call, node, iter.cur);

		if (call->spec.patient && call->state != CALL_ENDED)
			call->deadline += away;
	}
}

void
call_advance(CallSet *set)
{
	excuse_absence(set);
	(void) advance_all(set);
	set->left_at = now_us();
}

static Call *
take_ended(CallSet *set, bool *any)
{
	dlist_iter	iter;

	*any = false;
	dlist_foreach(iter, &set->calls)
	{
		Call	   *call = dlist_container(Call, node, iter.cur);

		if (call->state == CALL_ENDED)
		{
			dlist_delete(&call->node);
			call->returned = true;
			return call;
		}
		*any = true;
	}
	return NULL;
}

/* What can be done now: a call that has ended, or NULL; *any: are others left? */
static Call *
poll_set(CallSet *set, long *next_ms, bool *any)
{
	HttpRequest *request;

	while (set->http != NULL && (request = http_take(set->http)) != NULL)
		handle_ended_request(request);
	*next_ms = advance_all(set);
	return take_ended(set, any);
}

Call *
call_wait(CallSet *set)
{
	Call	   *call;
	long		next_ms;
	bool		any;

	excuse_absence(set);
	while ((call = poll_set(set, &next_ms, &any)) == NULL && any)
		http_wait(set->http, next_ms);
	set->left_at = now_us();
	return call;
}

Call *
call_poll(CallSet *set, long *next_ms)
{
	Call	   *call;
	bool		any;

	excuse_absence(set);
	call = poll_set(set, next_ms, &any);
	set->left_at = now_us();
	return call;
}

static bool
sleep_on_latch(long timeout_ms)
{
	int			events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								   timeout_ms, compat_wait_event(WAIT_WORKER));

	ResetLatch(MyLatch);
	return (events & WL_LATCH_SET) != 0;
}

bool
call_sleep(CallSet *set, long timeout_ms)
{
	bool		woken;

	if (set->http == NULL)
		return sleep_on_latch(timeout_ms);
	excuse_absence(set);
	woken = http_sleep(set->http, timeout_ms);
	set->left_at = now_us();
	return woken;
}

int64
call_limited_us(const Call *call)
{
	return call->limited_us;
}

bool
call_was_sent(const Call *call)
{
	return call->was_sent ||
		(call->state == CALL_SENT && call->request != NULL &&
		 http_response(call->request)->sent);
}

/* For one who has started no other: those that end meanwhile are not told. */
void
call_finish(Call *call)
{
	while (!call->returned)
		(void) call_wait(call->set);
}

static Call *
wait_for(CallSet *set, Call *call)
{
	call_finish(call);
	return call;
}

Call *
call_run(CallSet *set, const CallSpec *spec)
{
	return wait_for(set, call_start(set, spec));
}

Call *
call_run_or_raise(CallSet *set, const CallSpec *spec)
{
	Call	   *call = call_run(set, spec);

	if (call->error != NULL)
		api_error_raise(call->error);
	return call;
}

Call *
call_start_token(CallSet *set, const CallSpec *spec)
{
	CallSpec	token = *spec;
	Call	   *call;

	token.method = "GET";
	token.what = "use the API";
	call = new_call(set, &token);
	call->token_only = true;
	return call;
}

const ApiError *
call_fetch_token(CallSet *set, const Tenant *tenant, bool patient)
{
	CallSpec	spec = {0};

	spec.tenant = tenant;
	spec.patient = patient;
	return wait_for(set, call_start_token(set, &spec))->error;
}
