/*-------------------------------------------------------------------------
 *
 * apierror.c
 *	  From an HTTP status or a failed transfer to SQLSTATE, message, DETAIL
 *	  and HINT.
 *
 * doc/errors.md prints this as a table; change both.  Messages name the server
 * and the object, DETAIL has the tenant's own words once and its tracking id,
 * HINT says what to do.  No header, no body and no URL with its query ever
 * gets into a message.  Of a token endpoint, which was sent the secret, no word
 * does but the error codes that OAuth defines.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "apierror.h"
#include "catalog/namespace.h"
#include "json.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

/* More of the tenant's words than this helps nobody. */
#define MAX_VENDOR_TEXT 1000

/* ------------------------------------------------------- the tenant's words */

/* Append one character, converted, or a question mark. */
static void
append_converted(StringInfo buf, const unsigned char *p, int len)
{
	int			encoding = GetDatabaseEncoding();
	char		converted[MAX_CONVERSION_GROWTH * 4 + 1];
	Oid			function;

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII || len == 1)
	{
		appendBinaryStringInfo(buf, (const char *) p, len);
		return;
	}
	/* finding a conversion reads a catalog */
	function = IsTransactionState() ? FindDefaultConversionProc(PG_UTF8, encoding) : InvalidOid;
	if (OidIsValid(function) &&
		pg_do_encoding_conversion_buf(function, PG_UTF8, encoding,
									  unconstify(unsigned char *, p), len,
									  (unsigned char *) converted, sizeof(converted), true) == len)
		appendStringInfoString(buf, converted);
	else
		appendStringInfoChar(buf, '?');
}

char *
api_error_convert(const char *utf8, size_t len)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (size_t i = 0; i < len;)
	{
		const unsigned char *p = (const unsigned char *) utf8 + i;
		int			n = pg_utf_mblen(p);

		if (*p == '\0' || n > (int) (len - i) || !pg_utf8_islegal(p, n))
		{
			appendStringInfoChar(&buf, '?');
			i++;
			continue;
		}
		append_converted(&buf, p, n);
		i += n;
	}
	return buf.data;
}

char *
api_error_text(const char *utf8)
{
	char	   *text = api_error_convert(utf8, Min(strlen(utf8), MAX_VENDOR_TEXT));

	for (char *p = text; *p; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			*p = ' ';
	}
	return text;
}

/* A string that says something, or NULL. */
static const char *
words(const JsonValue *v)
{
	const char *text = json_string(v);

	return text != NULL && text[strspn(text, " \t\r\n")] != '\0' ? text : NULL;
}

/* The text of a list of {locale, text}, or of strings: one, English if there is. */
static const char *
message_text(const JsonValue *messages)
{
	const char *text = NULL;

	for (const JsonValue *m = json_is_array(messages) ? json_first(messages) : NULL;
		 m != NULL; m = json_next(m))
	{
		const char *locale = json_get_string(m, "locale");
		const char *t = words(json_is_string(m) ? m : json_get(m, "text"));

		if (t == NULL)
			continue;
		if (text == NULL || (locale != NULL && pg_strncasecmp(locale, "en", 2) == 0))
			text = t;
		if (locale != NULL && pg_strncasecmp(locale, "en", 2) == 0)
			break;
	}
	return text;
}

/* The sentences of an object; the vendor's services and gateways have each their keys. */
static const char *
sentence(const JsonValue *body)
{
	static const char *const keys[] = {
		"detailMessage", "error_description", "errorMessage", "formatted_msg", "message",
		"detail", "title"
	};
	const char *text = message_text(json_get(body, "messages"));

	if (text == NULL)
		text = message_text(json_get(body, "causes"));
	for (int i = 0; text == NULL && i < lengthof(keys); i++)
		text = words(json_get(body, keys[i]));
	return text;
}

/* What only names the error. */
static const char *
error_name(const JsonValue *body)
{
	static const char *const keys[] = {"error", "errorName", "detailCode"};
	const char *text = NULL;

	for (int i = 0; text == NULL && i < lengthof(keys); i++)
		text = words(json_get(body, keys[i]));
	return text;
}

/*
 * The words in an error's body, whichever of its shapes it has: a string, a list,
 * an object, or an object's "error".
 */
static const char *
vendor_text(const JsonValue *body)
{
	const char *text = words(body);

	if (text == NULL && json_is_array(body))
		text = message_text(body);
	if (text == NULL && json_is_array(body))
		body = json_first(body);
	if (text == NULL)
		text = sentence(body);
	if (text == NULL)
		text = sentence(json_get(body, "error"));
	if (text == NULL)
		text = error_name(body);
	return text;
}

/* Fill in detail and tracking id from the answer. */
static void
add_vendor_detail(ApiError *e, const HttpResponse *response)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq error body",
											  ALLOCSET_SMALL_SIZES);
	const JsonValue *body = NULL;
	const char *problem;
	const char *text,
			   *id;
	StringInfoData buf;

	initStringInfo(&buf);
	if (response->body != NULL && response->body_len > 0)
	{
		json_clean(response->body, response->body_len);
		body = json_parse(response->body, response->body_len, cxt, &problem);
	}
	text = vendor_text(body);
	id = json_get_string(body, "trackingId");
	if (id == NULL && response->tracking_id[0] != '\0')
		id = response->tracking_id;
	if (text != NULL)
	{
		char	   *clean = api_error_text(text);

		while (clean[0] == ' ')
			clean++;
		while (clean[0] && clean[strlen(clean) - 1] == ' ')
			clean[strlen(clean) - 1] = '\0';
		appendStringInfo(&buf, "The tenant says: \"%s\".", clean);
	}
	else if (response->status != 0 && body == NULL && response->body_len > 0)
		appendStringInfoString(&buf, "The answer is not JSON, so it is probably a gateway's and not the tenant's.");
	if (id != NULL)
	{
		e->tracking_id = api_error_text(id);
		appendStringInfo(&buf, "%sTracking id: %s.", buf.len > 0 ? " " : "", e->tracking_id);
	}
	e->past_end = response->status == 400 && text != NULL &&
		strcmp(text, "Specified offset is invalid.") == 0;
	e->detail = buf.len > 0 ? buf.data : NULL;
	MemoryContextDelete(cxt);
}

/* The codes that an answer to a request for a token may have (RFC 6749, 4.1.2.1, 5.2). */
static const char *const oauth_codes[] = {
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client",
	"unsupported_grant_type", "invalid_scope", "access_denied",
	"unsupported_response_type", "server_error", "temporarily_unavailable"
};

/*
 * Fill in the detail of a token endpoint's answer: the code, where it is one of
 * OAuth's.  Whatever else is there may be the secret, in any disguise; a
 * tracking id too.
 */
static void
add_oauth_code(ApiError *e, const HttpResponse *response)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq error body",
											  ALLOCSET_SMALL_SIZES);
	const char *problem;
	const JsonValue *body = response->body == NULL ? NULL :
		json_parse(response->body, response->body_len, cxt, &problem);
	const char *code = json_get_string(body, "error");

	for (int i = 0; code != NULL && i < lengthof(oauth_codes); i++)
	{
		if (strcmp(code, oauth_codes[i]) == 0)
			e->detail = psprintf("The token endpoint says: \"%s\".", oauth_codes[i]);
	}
	MemoryContextDelete(cxt);
}

/* ------------------------------------------------------------ answered, badly */

typedef struct StatusRule
{
	int			first;
	int			last;
	int			sqlstate;
	ApiOutcome	outcome;
	const char *reason;
	const char *hint;
} StatusRule;

/* The first rule that holds the status counts. */
static const StatusRule status_rules[] = {
	{200, 299, ERRCODE_PROTOCOL_VIOLATION, API_LOST,
		"its answer cannot be understood", NULL},
	{300, 399, ERRCODE_PROTOCOL_VIOLATION, API_REFUSED,
	"it redirects elsewhere, and a redirect is not followed", "Correct base_url: it must be the tenant's API URL, like https://acme.api.identitynow.com, not the address of its user interface."},
	{400, 400, ERRCODE_INVALID_PARAMETER_VALUE, API_REFUSED,
	"the tenant refused the request", NULL},
	{401, 401, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, API_DENIED,
	"the tenant does not accept the token", "Check client_id and secret of the user mapping; a static access_token expires and has to be replaced."},
	{403, 403, ERRCODE_INSUFFICIENT_PRIVILEGE, API_DENIED,
	"the token may not do this", "The API wants a token with a user behind it (a personal access token) whose user level and scopes allow the call: see the table of scopes in README.md. accessreq.check() tells whether a user is behind it, and its level."},
	{404, 404, ERRCODE_UNDEFINED_OBJECT, API_REFUSED,
	"the tenant does not know it", NULL},
	{408, 408, ERRCODE_CONNECTION_FAILURE, API_LOST,
	"the tenant waited too long for the request", NULL},
	{414, 414, ERRCODE_INVALID_PARAMETER_VALUE, API_REFUSED,
	"the request is too long", "Use a shorter filter, or fewer ids in it."},
	{429, 429, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, API_LIMITED,
	"the tenant's rate limit is exceeded", "Try again later; a lower rate_limit on the server leaves more to other programs that use the same client."},
	{400, 499, ERRCODE_INVALID_PARAMETER_VALUE, API_REFUSED,
	"the tenant refused the request", NULL},
	{500, 599, ERRCODE_CONNECTION_FAILURE, API_LOST,
	"the tenant has a problem of its own", "Try again later."},
	{0, 999, ERRCODE_PROTOCOL_VIOLATION, API_LOST,
	"it answered with an unknown status", NULL},
};

static const StatusRule *
find_status_rule(int status)
{
	for (int i = 0;; i++)
	{
		if (status >= status_rules[i].first && status <= status_rules[i].last)
			return &status_rules[i];
	}
}

/* --------------------------------------------------------------- not answered */

typedef struct FailureRule
{
	HttpFailure failure;
	int			sqlstate;
	const char *reason;
	const char *hint;
} FailureRule;

static const FailureRule failure_rules[] = {
	{HTTP_FAILED_RESOLVE, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"its host name cannot be resolved",
	"Check base_url for a typing error, and the name server of this machine."},
	{HTTP_FAILED_CONNECT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"no connection can be made",
	"Check base_url, and whether this machine may reach it or needs the option proxy."},
	{HTTP_FAILED_PROXY, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"the proxy cannot be used", "Check the option proxy of the server."},
	{HTTP_FAILED_TLS, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"its TLS certificate is not accepted or the handshake failed",
	"Check scheme and port of base_url. Where a private CA signs (a proxy that inspects TLS), name its certificate with the option ca_file."},
	{HTTP_FAILED_TIMEOUT, ERRCODE_CONNECTION_FAILURE,
		"it did not answer in time",
	"The limits are connect_timeout and request_timeout: options of the server, or settings."},
	{HTTP_FAILED_TOO_LARGE, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		"its answer is larger than accessreq.max_response_size allows",
	"Ask for smaller pages, or raise the setting."},
	{HTTP_FAILED_BROKEN, ERRCODE_CONNECTION_FAILURE,
	"the connection broke before the answer was complete", "Try again."},
	{HTTP_FAILED_LOCAL, ERRCODE_SYSTEM_ERROR,
		"this machine could not carry out the request",
	"Check that the file named by ca_file exists and can be read by the server, and memory and open files of this machine."},
};

static const FailureRule *
find_failure_rule(HttpFailure failure)
{
	for (int i = 0; i < lengthof(failure_rules); i++)
	{
		if (failure_rules[i].failure == failure)
			return &failure_rules[i];
	}
	return &failure_rules[lengthof(failure_rules) - 1];
}

/* -------------------------------------------------------------- putting it up */

static char *
message(const Tenant *tenant, const char *what, const char *reason)
{
	return psprintf("could not %s on server \"%s\": %s", what, tenant->server, reason);
}

/*
 * A lost answer to something that changes: it may have been done, which has an
 * SQLSTATE of its own so that nobody sends it again without looking.
 */
static void
mark_lost(ApiError *e)
{
	e->outcome = API_LOST;
	e->sqlstate = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	e->hint = "The request may have been carried out: look at the status before you send it again.";
}

void
api_error_mark_unread(ApiError *e)
{
	mark_lost(e);
	e->hint = "It may have been carried out: look at accessreq.get_config() before you send it again.";
}

static void
describe_failure(ApiError *e, const Tenant *tenant, const char *what,
				 const HttpResponse *response, bool changes)
{
	const FailureRule *rule = find_failure_rule(response->failure);
	bool		timeout = response->failure == HTTP_FAILED_TIMEOUT;

	e->outcome = API_NOT_SENT;
	e->sqlstate = rule->sqlstate;
	e->message = message(tenant, what, rule->reason);
	e->hint = pstrdup(rule->hint);
	/* of a limit of ours it only says that writing failed */
	if (response->failure != HTTP_FAILED_TOO_LARGE)
		e->detail = psprintf("The HTTP library says: \"%s\".", api_error_text(response->error));
	if (timeout && !response->sent && response->status == 0)
		e->sqlstate = ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
	if (changes && response->sent)
		mark_lost(e);
}

static void
describe_status(ApiError *e, const Tenant *tenant, const char *what,
				const HttpResponse *response, bool changes, bool token)
{
	const StatusRule *rule = find_status_rule(response->status);

	e->outcome = rule->outcome;
	e->sqlstate = rule->sqlstate;
	e->message = message(tenant, what,
						 psprintf("%s (HTTP %d)", rule->reason, response->status));
	e->hint = rule->hint ? pstrdup(rule->hint) : NULL;
	if (token)
		add_oauth_code(e, response);
	else
		add_vendor_detail(e, response);
	if (rule->outcome == API_LOST && changes)
		mark_lost(e);
}

/* The token's own answers: a 400 or 401 there is a wrong client or secret. */
static void
describe_token_status(ApiError *e, const Tenant *tenant, const char *what,
					  const HttpResponse *response)
{
	if (response->status == 404)
		e->hint = pstrdup("Check base_url, and token_url where the server has one.");
	if (response->status != 400 && response->status != 401 && response->status != 403)
		return;
	e->outcome = API_DENIED;
	e->sqlstate = ERRCODE_INVALID_PASSWORD;
	e->message = message(tenant, what,
						 psprintf("the tenant does not accept the client or its secret (HTTP %d)",
								  response->status));
	e->hint = psprintf("Check client_id and secret of the user mapping for server \"%s\", and that the personal access token was not deleted in the tenant.",
					   tenant->server);
}

ApiError *
api_error_describe(const Tenant *tenant, const char *what,
				   const HttpResponse *response, bool changes, bool token)
{
	ApiError   *e = palloc0(sizeof(ApiError));

	e->failure = response->failure;
	e->status = response->status;
	if (response->failure != HTTP_ANSWERED)
		describe_failure(e, tenant, what, response, changes && !token);
	else
	{
		describe_status(e, tenant, what, response, changes && !token, token);
		if (token)
			describe_token_status(e, tenant, what, response);
	}
	/* without a token nothing was sent of what was asked for */
	if (token && e->outcome != API_DENIED && e->outcome != API_LIMITED)
		e->outcome = API_NOT_SENT;
	return e;
}

ApiError *
api_error_limited(const Tenant *tenant, const char *what, int64 wait_us, bool by_tenant)
{
	ApiError   *e = palloc0(sizeof(ApiError));
	int64		seconds = (wait_us + USECS_PER_SEC - 1) / USECS_PER_SEC;

	e->outcome = API_LIMITED;
	e->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	e->status = by_tenant ? 429 : 0;
	e->message = message(tenant, what,
						 by_tenant ?
						 psprintf("the tenant's rate limit is exceeded, it asks to wait " INT64_FORMAT " s", seconds) :
						 psprintf("the request budget is used up for " INT64_FORMAT " s", seconds));
	e->detail = by_tenant ? NULL :
		psprintf("The option rate_limit of the server allows %d requests in 10 s.",
				 tenant->rate_limit);
	e->hint = by_tenant ?
		psprintf("Try again in " INT64_FORMAT " s. A call waits once, where that fits into its request_timeout.", seconds) :
		psprintf("Try again in " INT64_FORMAT " s; a larger request_timeout would have waited.", seconds);
	return e;
}

ApiError *
api_error_bad_answer(const Tenant *tenant, const char *what,
					 const HttpResponse *response, const char *problem, bool changes)
{
	ApiError   *e = palloc0(sizeof(ApiError));

	e->outcome = API_LOST;
	e->sqlstate = ERRCODE_PROTOCOL_VIOLATION;
	e->status = response->status;
	e->message = message(tenant, what, "its answer cannot be understood");
	e->detail = response->tracking_id[0] ?
		psprintf("The answer: %s. Tracking id: %s.", problem, response->tracking_id) :
		psprintf("The answer: %s.", problem);
	e->hint = "Check that base_url is the tenant's API URL and not a web page's.";
	if (changes)
		mark_lost(e);
	return e;
}

ApiError *
api_error_unclear(const Tenant *tenant, const char *what,
				  const HttpResponse *response, int accepted)
{
	ApiError   *e = palloc0(sizeof(ApiError));

	e->status = response->status;
	e->message = message(tenant, what, response->status == accepted ?
						 psprintf("its answer cannot be understood (HTTP %d)", response->status) :
						 psprintf("it answered with HTTP %d, where %d would have accepted it",
								  response->status, accepted));
	add_vendor_detail(e, response);
	mark_lost(e);
	return e;
}

ApiError *
api_error_not_put(const Tenant *tenant, const char *what, const HttpResponse *response)
{
	ApiError   *e = palloc0(sizeof(ApiError));

	e->status = response->status;
	e->message = message(tenant, what, "its answer is not what was sent, nor is what it shows afterwards");
	if (response->tracking_id[0])
	{
		e->tracking_id = api_error_text(response->tracking_id);
		e->detail = psprintf("Tracking id: %s.", e->tracking_id);
	}
	api_error_mark_unread(e);
	return e;
}

ApiError *
api_error_no_token(const Tenant *tenant, const char *what, const HttpResponse *response)
{
	ApiError   *e = palloc0(sizeof(ApiError));

	e->outcome = API_NOT_SENT;
	e->sqlstate = ERRCODE_PROTOCOL_VIOLATION;
	e->status = response->status;
	e->message = message(tenant, what, "its answer cannot be understood");
	e->detail = pstrdup("The answer of the token endpoint: there is no access token in it.");
	e->hint = pstrdup("Check base_url, and token_url where the server has one: it must be the tenant's API URL and not a web page's.");
	return e;
}

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

ApiError *
api_error_copy(const ApiError *error)
{
	ApiError   *copy = palloc(sizeof(ApiError));

	*copy = *error;
	copy->message = copy_text(error->message);
	copy->detail = copy_text(error->detail);
	copy->hint = copy_text(error->hint);
	copy->tracking_id = copy_text(error->tracking_id);
	return copy;
}

void
api_error_raise(const ApiError *e)
{
	ereport(ERROR,
			(errcode(e->sqlstate),
			 errmsg("%s", e->message),
			 e->detail ? errdetail("%s", e->detail) : 0,
			 e->hint ? errhint("%s", e->hint) : 0));
	pg_unreachable();
}
