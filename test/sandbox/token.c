/*
 * token.c
 *
 * POST /oauth/token and the bearer tokens it gives out.  A token looks like
 * the JWT of a live tenant; it is known by its text, not by its signature.
 * What a client may see hangs on words in its client_id (README.md).
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct Token
{
	char	   *text;
	char	   *client_id;
	int64_t		expires;		/* tenant's clock */
	struct Token *next;
} Token;

#define NBUCKETS 1024

static Token *buckets[NBUCKETS];
static bool static_revoked;

static const char *
identity_of(const char *client_id)
{
	if (strstr(client_id, "nouser"))
		return NULL;
	return person(strstr(client_id, "self") ? SELF_PERSON : ADMIN_PERSON)->id;
}

void
caller_from_client(Caller *c, const char *client_id)
{
	strncpy(c->client_id, client_id, sizeof(c->client_id) - 1);
	c->client_id[sizeof(c->client_id) - 1] = '\0';
	c->identity = identity_of(client_id);
	c->self_only = strstr(client_id, "self") != NULL;
	c->old_tenant = strstr(client_id, "oldtenant") != NULL;
}

static Token **
bucket_of(const char *text)
{
	return &buckets[hash_bytes(text, strlen(text), 3) % NBUCKETS];
}

static void
token_free(Token *t)
{
	free(t->text);
	free(t->client_id);
	free(t);
}

/* Puts a token by, and drops the expired ones it meets. */
static void
token_keep(const char *text, const char *client_id, int64_t expires)
{
	Token	  **at = bucket_of(text);
	Token	   *t = xmalloc(sizeof(Token));

	for (Token **p = at; *p;)
	{
		Token	   *old = *p;

		if (old->expires > tenant_now())
			p = &old->next;
		else
		{
			*p = old->next;
			token_free(old);
		}
	}
	*t = (Token) {xstrdup(text), xstrdup(client_id), expires, *at};
	*at = t;
}

void
token_revoke_all(void)
{
	for (int i = 0; i < NBUCKETS; i++)
		while (buckets[i])
		{
			Token	   *t = buckets[i];

			buckets[i] = t->next;
			token_free(t);
		}
	static_revoked = true;
}

/* The claims that a live token carries. */
static char *
claims(const char *client_id, int64_t expires, const char *tenant_id, const char *org)
{
	cJSON	   *json = cJSON_CreateObject();
	cJSON	   *roles;
	const char *identity = identity_of(client_id);
	char	   *s;
	char		jti[33];

	new_id(jti);
	cJSON_AddStringToObject(json, "tenant_id", tenant_id);
	cJSON_AddStringToObject(json, "pod", "sandbox");
	cJSON_AddStringToObject(json, "org", org);
	if (identity)
	{
		cJSON_AddStringToObject(json, "identity_id", identity);
		cJSON_AddStringToObject(json, "user_name", person_by_id(identity)->name);
	}
	roles = cJSON_AddArrayToObject(json, "authorities");
	cJSON_AddItemToArray(roles, cJSON_CreateString(identity == NULL ? "API" :
												   strstr(client_id, "self") ? "USER" : "ORG_ADMIN"));
	cJSON_AddStringToObject(json, "client_id", client_id);
	cJSON_AddStringToObject(json, "jti", jti);
	cJSON_AddNumberToObject(json, "exp", (double) (expires / USECS_PER_SEC));
	s = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	return s;
}

static void
issue(const char *client_id, Answer *a)
{
	bool		other = strstr(client_id, "othertenant") != NULL;
	const char *tenant_id = other ? "7c1e2a52-0b7e-4a55-9a0e-5d1f0e0b2222" : "3f0d9a6e-51c4-4c3c-8f0e-2b7a6d9c1111";
	const char *org = other ? "other-sandbox" : "sandbox";
	static const char head[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
	int64_t		expires = tenant_now() + options.token_ttl * USECS_PER_SEC;
	char	   *payload = claims(client_id, expires, tenant_id, org);
	char		signature[33],
				jti[33];
	Text		jwt = {0};
	cJSON	   *json = cJSON_CreateObject();

	new_id(signature);
	new_id(jti);
	base64url(&jwt, head, strlen(head));
	text_puts(&jwt, ".");
	base64url(&jwt, payload, strlen(payload));
	text_puts(&jwt, ".");
	base64url(&jwt, signature, 32);
	token_keep(jwt.data, client_id, expires);
	cJSON_AddStringToObject(json, "access_token", jwt.data);
	cJSON_AddStringToObject(json, "token_type", "bearer");
	cJSON_AddNumberToObject(json, "expires_in", options.token_ttl);
	cJSON_AddStringToObject(json, "scope", "sp:scopes:all");
	cJSON_AddStringToObject(json, "tenant_id", tenant_id);
	cJSON_AddStringToObject(json, "pod", "sandbox");
	cJSON_AddBoolToObject(json, "strong_auth_supported", 1);
	cJSON_AddStringToObject(json, "org", org);
	if (identity_of(client_id))
		cJSON_AddStringToObject(json, "identity_id", identity_of(client_id));
	cJSON_AddBoolToObject(json, "strong_auth", 1);
	cJSON_AddStringToObject(json, "jti", jti);
	answer_json(a, 200, json);
	answer_header(a, "Cache-Control", "no-store");
	cJSON_free(payload);
	text_free(&jwt);
}

static void
oauth_error(Answer *a, int status, const char *error, const char *description)
{
	cJSON	   *json = cJSON_CreateObject();

	cJSON_AddStringToObject(json, "error", error);
	cJSON_AddStringToObject(json, "error_description", description);
	answer_json(a, status, json);
}

/* Credentials count in the body alone: in a query they would end in logs. */
void
token_fetch(Request *r, Answer *a)
{
	Params		form;
	const char *grant,
			   *id,
			   *secret;

	params_parse(&form, r->body.data ? r->body.data : "", true);
	grant = params_get(&form, "grant_type");
	id = params_get(&form, "client_id");
	secret = params_get(&form, "client_secret");
	caller_from_client(&r->caller, id ? id : "");
	if (r->query && *r->query)
		oauth_error(a, 400, "invalid_request", "Parameters belong into the body");
	else if (r->content_type == NULL ||
			 strncasecmp(r->content_type, "application/x-www-form-urlencoded", 33) != 0)
		oauth_error(a, 400, "invalid_request", "Unsupported content type");
	else if (form.bad || grant == NULL)
		oauth_error(a, 400, "invalid_request", "Missing or malformed form parameter");
	else if (strcmp(grant, "client_credentials") != 0)
		oauth_error(a, 400, "unsupported_grant_type", "Unsupported grant type");
	else if (id == NULL || *id == '\0' || secret == NULL || strcmp(secret, options.client_secret) != 0)
		oauth_error(a, 401, "invalid_client", "Bad client credentials");
	else if (limit_take(r, a))
		issue(id, a);
	params_free(&form);
}

/* Finds the caller behind the Authorization header. */
bool
token_check(Request *r)
{
	const char *text = r->authorization;

	if (text == NULL || strncasecmp(text, "Bearer ", 7) != 0)
		return false;
	for (text += 7; *text == ' ';)
		text++;
	if (options.access_token && !static_revoked && strcmp(text, options.access_token) == 0)
	{
		caller_from_client(&r->caller, "static");
		return true;
	}
	for (Token *t = *bucket_of(text); t; t = t->next)
		if (strcmp(t->text, text) == 0 && t->expires > tenant_now())
		{
			caller_from_client(&r->caller, t->client_id);
			return true;
		}
	return false;
}
