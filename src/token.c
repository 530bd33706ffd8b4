/*-------------------------------------------------------------------------
 *
 * token.c
 *	  Access tokens: OAuth client credentials, kept per process by mapping.
 *
 * A token lives in process memory alone, is never written anywhere, and is
 * zeroed when it is let go: when it is replaced, refused, or when the user
 * mapping it was fetched with changes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/hashfn.h"
#include "json.h"
#include "mb/pg_wchar.h"
#include "port.h"
#include "redact.h"
#include "token.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Assumed where the answer does not say; the shortest life seen is 749 s. */
#define DEFAULT_LIFETIME_S 600

/* Nothing lives longer: the tenant's longest is 12 hours. */
#define MAX_LIFETIME_S (24 * 60 * 60)

/* Renew this long before the end, or a tenth of the life if that is less. */
#define RENEW_EARLY_S 60

/*
 * But use it for this long from its arrival on, whatever it says of its life:
 * else a life of 0, or one shorter than its way here, would have us ask for one
 * token after the other.
 */
#define MIN_USE_S 1

/* Longest token we take: it has to fit a header. */
#define MAX_TOKEN_LENGTH 16384

typedef struct TokenEntry
{
	Oid			umid;			/* key */
	uint32		mapping_hash;	/* for the syscache callback */
	uint64		fingerprint;	/* of the credentials it was fetched with */
	uint64		serial;
	char	   *token;			/* malloc'd, or NULL */
	TimestampTz renew_at;
	char	   *tenant;			/* malloc'd: tenant id or org, or NULL */
	char	   *identity;		/* malloc'd, or NULL */
} TokenEntry;

static HTAB *tokens = NULL;
static uint64 last_serial = 0;

static void
let_go(char **text)
{
	if (*text != NULL)
	{
		explicit_bzero(*text, strlen(*text));
		free(*text);
		*text = NULL;
	}
}

static void
forget(TokenEntry *entry)
{
	let_go(&entry->token);
	let_go(&entry->tenant);
	let_go(&entry->identity);
}

/*
 * A mapping changed.  A reset of all caches (hash 0) says nothing about ours;
 * then the fingerprint tells at the next use.
 */
static void
on_invalidate(Datum arg, int cacheid, uint32 hash)
{
	HASH_SEQ_STATUS seq;
	TokenEntry *entry;

	if (hash == 0)
		return;
	hash_seq_init(&seq, tokens);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (entry->mapping_hash == hash)
			forget(entry);
	}
}

static void
init_tokens(void)
{
	HASHCTL		ctl;

	if (tokens != NULL)
		return;
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(TokenEntry);
	ctl.hcxt = TopMemoryContext;
	tokens = hash_create("accessreq tokens", 16, &ctl,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, on_invalidate, (Datum) 0);
}

static uint64
mix(uint64 h, const char *text)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text), h + 1);
}

/* Keyed, so that nobody can make another credential that has the same. */
static uint64
fingerprint(const Tenant *tenant)
{
	static uint64 seed = 0;

	if (seed == 0 && !pg_strong_random(&seed, sizeof(seed)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random hash key")));
	return seed ^ mix(mix(mix(seed + tenant->credential, tenant->token_url), tenant->client_id),
			   tenant->secret);
}

static TokenEntry *
find_entry(const Tenant *tenant)
{
	TokenEntry *entry;
	bool		found;

	init_tokens();
	entry = hash_search(tokens, &tenant->umid, HASH_ENTER, &found);
	if (!found)
	{
		Oid			umid = entry->umid;

		memset(entry, 0, sizeof(TokenEntry));
		entry->umid = umid;
	}
	return entry;
}

const char *
token_get(const Tenant *tenant, uint64 *serial)
{
	TokenEntry *entry;

	*serial = 0;
	if (tenant->credential == CREDENTIAL_TOKEN)
		return tenant->secret;
	entry = find_entry(tenant);
	if (entry->token != NULL &&
		(entry->fingerprint != fingerprint(tenant) ||
		 entry->renew_at <= GetCurrentTimestamp()))
		forget(entry);
	*serial = entry->serial;
	return entry->token;
}

void
token_drop(const Tenant *tenant, uint64 serial)
{
	TokenEntry *entry;

	if (tenant->credential == CREDENTIAL_TOKEN)
		return;
	entry = find_entry(tenant);
	if (entry->serial == serial)
		forget(entry);
}

/* -------------------------------------------------------------- the request */

/* Form data is UTF-8, whatever the database's encoding is. */
static char *
form_value(const char *text)
{
	char	   *utf8 = pg_server_to_any(text, strlen(text), PG_UTF8);
	char	   *encoded = http_encode(utf8);

	/* it may be a secret */
	if (utf8 != text)
		explicit_bzero(utf8, strlen(utf8));
	return encoded;
}

/* As psprintf() would, which leaves a first try that was too short behind. */
static char *
form_body(const char *client_id, const char *secret)
{
	static const char *const format =
		"grant_type=client_credentials&client_id=%s&client_secret=%s";
	size_t		size = strlen(format) + strlen(client_id) + strlen(secret) + 1;
	char	   *body = palloc(size);

	snprintf(body, size, format, client_id, secret);
	return body;
}

char *
token_spec(const Tenant *tenant, HttpSpec *spec)
{
	char	   *secret = tenant_secret(tenant);
	/* a file's bytes are sent as they are */
	char	   *encoded = tenant->credential == CREDENTIAL_SECRET_FILE ?
		http_encode(secret) : form_value(secret);

	spec->method = "POST";
	spec->url = tenant->token_url;
	spec->content_type = "application/x-www-form-urlencoded";
	spec->body = form_body(form_value(tenant->client_id), encoded);
	spec->body_len = strlen(spec->body);
	explicit_bzero(encoded, strlen(encoded));
	return secret;
}

void
token_spec_done(HttpSpec *spec)
{
	explicit_bzero(unconstify(char *, spec->body), spec->body_len);
	spec->body = NULL;
}

/* --------------------------------------------------------------- the answer */

/* May it stand in a header? */
static bool
is_printable(const char *token)
{
	size_t		len = strlen(token);

	if (len == 0 || len > MAX_TOKEN_LENGTH)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (token[i] <= ' ' || token[i] >= 0x7f)
			return false;
	}
	return true;
}

static char *
keep(const char *text)
{
	return text ? strdup(text) : NULL;
}

/* A name that the token endpoint gives, unless it repeats the secret. */
static char *
keep_name(const char *name, const char *secret)
{
	return redact_repeats(name, secret) ? NULL : keep(name);
}

static const char *
first_of(const JsonValue *object, const char *a, const char *b)
{
	const char *value = json_get_string(object, a);

	return value ? value : json_get_string(object, b);
}

/*
 * The claims of a JWT, its second part; NULL where the token is none.  They
 * are not verified: the tenant does that, we only learn its name.
 */
static const JsonValue *
read_claims(const char *token, MemoryContext cxt)
{
	const char *start = strchr(token, '.');
	const char *end = start ? strchr(start + 1, '.') : NULL;
	char	   *text;
	char	   *json;
	int			len,
				n;
	const char *problem;

	if (end == NULL)
		return NULL;
	start++;
	len = end - start;
	text = palloc(len + 4);
	for (int i = 0; i < len; i++)
		text[i] = start[i] == '-' ? '+' : start[i] == '_' ? '/' : start[i];
	while (len % 4 != 0)
		text[len++] = '=';
	json = palloc(pg_b64_dec_len(len) + 1);
	/* its type is char * up to 17, uint8 * from 18 */
	n = pg_b64_decode(text, len, (void *) json, pg_b64_dec_len(len));
	return n > 0 ? json_parse(json, n, cxt, &problem) : NULL;
}

static void
keep_identity(TokenEntry *entry, const JsonValue *answer, const char *token,
			  const char *secret, MemoryContext cxt)
{
	const JsonValue *claims = read_claims(token, cxt);
	const char *tenant = first_of(answer, "tenant_id", "org");
	const char *identity = json_get_string(answer, "identity_id");

	entry->tenant = keep_name(tenant ? tenant : first_of(claims, "tenant_id", "org"), secret);
	entry->identity = keep_name(identity ? identity : json_get_string(claims, "identity_id"), secret);
}

static int64
lifetime(const JsonValue *answer)
{
	int64		seconds;

	if (!json_get_int64(answer, "expires_in", &seconds) || seconds < 0)
		return DEFAULT_LIFETIME_S;
	return Min(seconds, MAX_LIFETIME_S);
}

bool
token_accept(const Tenant *tenant, const HttpResponse *response, const char *secret)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq token answer",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	TokenEntry *entry = find_entry(tenant);
	const char *problem;
	const JsonValue *answer = json_parse(response->body, response->body_len, cxt, &problem);
	const char *token = json_get_string(answer, "access_token");
	bool		ok = token != NULL && is_printable(token);

	if (ok)
	{
		int64		life = lifetime(answer);

		/* may let an invalidation in, which would forget what is entered */
		uint32		hash = GetSysCacheHashValue1(USERMAPPINGOID,
												 ObjectIdGetDatum(tenant->umid));

		forget(entry);
		entry->mapping_hash = hash;
		entry->token = keep(token);
		entry->fingerprint = fingerprint(tenant);
		entry->serial = ++last_serial;
		entry->renew_at = Max(response->sent_at +
							  (life - Min(RENEW_EARLY_S, life / 10)) * USECS_PER_SEC,
							  GetCurrentTimestamp() + MIN_USE_S * USECS_PER_SEC);
		keep_identity(entry, answer, token, secret, cxt);
		ok = entry->token != NULL;
	}
	if (token != NULL)
		explicit_bzero(unconstify(char *, token), strlen(token));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	return ok;
}

char *
token_tenant(const Tenant *tenant)
{
	TokenEntry *entry;

	if (tenant->credential == CREDENTIAL_TOKEN)
	{
		const JsonValue *claims = read_claims(tenant->secret, CurrentMemoryContext);
		const char *name = first_of(claims, "tenant_id", "org");

		return name ? pstrdup(name) : NULL;
	}
	entry = find_entry(tenant);
	return entry->tenant ? pstrdup(entry->tenant) : NULL;
}

char *
token_identity(const Tenant *tenant)
{
	TokenEntry *entry;

	if (tenant->credential == CREDENTIAL_TOKEN)
	{
		const JsonValue *claims = read_claims(tenant->secret, CurrentMemoryContext);
		const char *name = json_get_string(claims, "identity_id");

		return name ? pstrdup(name) : NULL;
	}
	entry = find_entry(tenant);
	return entry->identity ? pstrdup(entry->identity) : NULL;
}
