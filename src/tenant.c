/*-------------------------------------------------------------------------
 *
 * tenant.c
 *	  Tenants: the options of servers and user mappings, their validator, and
 *	  a cache of what they say.
 *
 * One table lists every option, with the object it belongs to, its type and
 * range, and who may set it; validator, hints and reading all go by it.  As in
 * postgres_fdw, a SERVER is the connection and secrets live on the mapping.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "accessreq.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "mode.h"
#include "nodes/makefuncs.h"
#include "storage/fd.h"
#include "tenant.h"
#include "url.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define WRAPPER_NAME "accessreq"

/* The vendor allows 100 requests in 10 s; leave some to others. */
#define DEFAULT_RATE_LIMIT 90

/* One slot of shared memory each; far above what a tenant allows. */
#define MAX_RATE_LIMIT 1000

#define DEFAULT_MAX_CONCURRENCY 4
#define MAX_MAX_CONCURRENCY 32

/* Timeouts: as the settings, 1 ms to a day. */
#define MAX_TIMEOUT_MS (24 * 60 * 60 * 1000)

/* A file of a secret is one line; a larger one is not what was meant. */
#define MAX_SECRET_FILE 8192

/* Longest header value that every gateway takes. */
#define MAX_USER_AGENT 256
#define MAX_CREDENTIAL 16384

const char *const tenant_api_names[API_VERSIONS] =
{"beta", "v3", "v2024", "v2025", "v2026", "v1"};

/* ----------------------------------------------------------- option table */

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_BASE_URL,
	OPTION_URL,
	OPTION_PROXY,
	OPTION_API,
	OPTION_FILE,
	OPTION_INT,
	OPTION_BOOL,
	OPTION_MS
} OptionType;

typedef struct TenantOption
{
	const char *name;
	Oid			catalog;		/* whose option it is */
	OptionType	type;
	int			min;			/* of a number; of a text's length */
	int			max;
	bool		file_right;		/* wants pg_read_server_files: the server
								 * process would open it, or send through it */
} TenantOption;

static const TenantOption options[] = {
	{"base_url", ForeignServerRelationId, OPTION_BASE_URL, 0, 0, false},
	{"api", ForeignServerRelationId, OPTION_API, 0, 0, false},
	{"token_url", ForeignServerRelationId, OPTION_URL, 0, 0, false},
	{"ca_file", ForeignServerRelationId, OPTION_FILE, 0, 0, true},
	{"proxy", ForeignServerRelationId, OPTION_PROXY, 0, 0, true},
	{"connect_timeout", ForeignServerRelationId, OPTION_MS, 1, MAX_TIMEOUT_MS, false},
	{"request_timeout", ForeignServerRelationId, OPTION_MS, 1, MAX_TIMEOUT_MS, false},
	{"rate_limit", ForeignServerRelationId, OPTION_INT, 0, MAX_RATE_LIMIT, false},
	{"max_concurrency", ForeignServerRelationId, OPTION_INT, 1, MAX_MAX_CONCURRENCY, false},
	{"user_agent", ForeignServerRelationId, OPTION_TEXT, 1, MAX_USER_AGENT, false},
	{"read_only", ForeignServerRelationId, OPTION_BOOL, 0, 0, false},
	{"client_id", UserMappingRelationId, OPTION_TEXT, 1, MAX_CREDENTIAL, false},
	{"client_secret", UserMappingRelationId, OPTION_TEXT, 1, MAX_CREDENTIAL, false},
	{"client_secret_file", UserMappingRelationId, OPTION_FILE, 0, 0, true},
	{"access_token", UserMappingRelationId, OPTION_TEXT, 1, MAX_CREDENTIAL, false},
};

static const TenantOption *
find_option(const char *name, Oid catalog)
{
	for (int i = 0; i < lengthof(options); i++)
	{
		if (options[i].catalog == catalog && strcmp(options[i].name, name) == 0)
			return &options[i];
	}
	return NULL;
}

static char *
list_options(Oid catalog)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < lengthof(options); i++)
	{
		if (options[i].catalog == catalog)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "", options[i].name);
	}
	return buf.data;
}

static const char *
option_value(List *list, const char *name)
{
	ListCell   *cell;

	foreach(cell, list)
	{
		DefElem    *def = (DefElem *) lfirst(cell);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return NULL;
}

/* --------------------------------------------------------------- validator */

static void
bad_value(const TenantOption *option, const char *why, const char *hint)
{
	/* never the value: it may be a secret in the wrong place */
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": %s", option->name, why),
			 hint ? errhint("%s", hint) : 0));
}

/* Does a path end in "/v3", "/beta", "/v2024"…, as the vendor prints URLs? */
static bool
ends_in_version(const char *path)
{
	const char *last = strrchr(path, '/');

	if (last == NULL)
		return false;
	last++;
	if (strcmp(last, "beta") == 0)
		return true;
	return last[0] == 'v' && last[1] != '\0' &&
		strspn(last + 1, "0123456789") == strlen(last + 1);
}

/*
 * Say so where a host may receive no secret: at use an error; in the validator
 * a warning, so that a restore does not fail.
 */
static void
report_host(const char *host, int elevel)
{
	if (url_host_listed(host, accessreq_allowed_hosts))
		return;
	ereport(elevel,
			(errcode(elevel >= ERROR ? ERRCODE_INSUFFICIENT_PRIVILEGE : ERRCODE_WARNING),
			 errmsg("host \"%s\" is not in accessreq.allowed_hosts", host),
			 errdetail("Secrets are sent to the hosts that this setting lists and to no others: \"%s\".",
					   accessreq_allowed_hosts),
			 errhint("A tenant's API is at a host like acme.api.identitynow.com: correct the URL with ALTER SERVER. Only if it is right, ask a superuser to add the host to the setting.")));
}

static void
check_url(const TenantOption *option, const char *value)
{
	Url			url;
	const char *problem = url_parse(value, &url);

	if (problem != NULL)
		bad_value(option, problem,
				  "Write it as https://acme.api.identitynow.com.");
	if (!url.https && !url_is_loopback(url.host))
		bad_value(option, "http is for hosts on this machine alone",
				  "Use https: the secret and the token travel with every request.");
	if (option->type == OPTION_BASE_URL)
	{
		char	   *path = url.path;

		while (*path && path[strlen(path) - 1] == '/')
			path[strlen(path) - 1] = '\0';
		if (ends_in_version(path))
			bad_value(option, "its path ends in an API version",
					  "Leave the version out of the URL and give it as option \"api\".");
	}
	report_host(url.host, WARNING);
}

static void
check_proxy(const TenantOption *option, const char *value)
{
	Url			url;
	const char *problem = url_parse(value, &url);

	if (problem != NULL)
		bad_value(option, problem, "Write it as http://proxy.example.com:3128.");
}

static void
check_api(const TenantOption *option, const char *value)
{
	for (int i = 0; i < API_VERSIONS; i++)
	{
		if (strcmp(value, tenant_api_names[i]) == 0)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": it is not an API version", option->name),
			 errhint("Valid values are beta, v3, v2024, v2025, v2026 and v1; take v2024 where there is no reason for another. beta, v3 and the years end in 2029; v2024 and later cancel 50 requests in one call; v3 has no close.")));
}

/* "30s", "30 s", "30 s "; and no hexadecimal digits. */
static bool
ends_in_unit(const char *value)
{
	size_t		len = strlen(value);

	while (len > 0 && value[len - 1] == ' ')
		len--;
	return len > 0 && strpbrk(value, "xX") == NULL &&
		strchr("snhd", value[len - 1]) != NULL;
}

static void
check_number(const TenantOption *option, const char *value)
{
	int			number;
	const char *hint = NULL;
	int			flags = option->type == OPTION_MS ? GUC_UNIT_MS : 0;

	/* a bare number would mean milliseconds, which nobody expects of "30" */
	if (!parse_int(value, &number, flags, &hint) ||
		(option->type == OPTION_MS && !ends_in_unit(value)))
		bad_value(option,
				  option->type == OPTION_MS ? "it is not a time with its unit" : "it is not a number",
				  option->type == OPTION_MS ?
				  "Write a number with its unit: 500ms, 30s, 1min." : hint);
	if (number < option->min || number > option->max)
		bad_value(option,
				  psprintf("%d is outside the valid range (%d .. %d)%s", number,
						   option->min, option->max,
						   option->type == OPTION_MS ? " ms" : ""), NULL);
}

static void
check_text(const TenantOption *option, const char *value)
{
	size_t		len = strlen(value);

	if (len < (size_t) option->min)
		bad_value(option, "it is empty", NULL);
	if (len > (size_t) option->max)
		bad_value(option, psprintf("it is longer than %d bytes", option->max), NULL);
	/* all of these end up in a header or are what a header is made from */
	for (const char *p = value; *p; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			bad_value(option, "it holds a control character", NULL);
	}
}

static void
check_value(const TenantOption *option, const char *value)
{
	bool		flag;

	switch (option->type)
	{
		case OPTION_TEXT:
			check_text(option, value);
			break;
		case OPTION_BASE_URL:
		case OPTION_URL:
			check_url(option, value);
			break;
		case OPTION_PROXY:
			check_proxy(option, value);
			break;
		case OPTION_API:
			check_api(option, value);
			break;
		case OPTION_FILE:
			if (!is_absolute_path(value))
				bad_value(option, "it is not an absolute path", NULL);
			break;
		case OPTION_INT:
		case OPTION_MS:
			check_number(option, value);
			break;
		case OPTION_BOOL:
			if (!parse_bool(value, &flag))
				bad_value(option, "it is not a boolean", "Write true or false.");
			break;
	}
}

/* An option that this object does not have: say which it has. */
static void
refuse_unknown(const char *name, Oid catalog)
{
	Oid			other = catalog == ForeignServerRelationId ?
		UserMappingRelationId : ForeignServerRelationId;
	char	   *valid = list_options(catalog);

	if (valid[0] && find_option(name, other) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 other == UserMappingRelationId ?
				 errmsg("option \"%s\" belongs on a user mapping, not on a server", name) :
				 errmsg("option \"%s\" belongs on the server, not on a user mapping", name),
				 other == UserMappingRelationId ?
				 errhint("Secrets of a server could be read by everybody: use CREATE USER MAPPING.") :
				 errhint("Use ALTER SERVER.")));
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 valid[0] ? errhint("Valid options in this context are: %s.", valid) :
			 errhint("There are no valid options in this context.")));
}

static void
check_file_right(const TenantOption *option)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errdetail("Only a superuser or a member of pg_read_server_files may set it, or alter options of an object that has it.")));
}

static void
check_server_complete(List *list)
{
	if (option_value(list, "base_url") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"base_url\" is required"),
				 errhint("It is the API URL of your tenant, like https://acme.api.identitynow.com.")));
	if (option_value(list, "api") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"api\" is required"),
				 errhint("Valid values are beta, v3, v2024, v2025, v2026 and v1; take v2024 where there is no reason for another. beta, v3 and the years end in 2029; v2024 and later cancel 50 requests in one call; v3 has no close.")));
}

static void
check_mapping_complete(List *list)
{
	int			n = (option_value(list, "client_secret") != NULL) +
		(option_value(list, "client_secret_file") != NULL) +
		(option_value(list, "access_token") != NULL);
	bool		has_id = option_value(list, "client_id") != NULL;

	if (n != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("a user mapping needs exactly one of client_secret, client_secret_file and access_token"),
				 errhint("To change from one to the other, drop and add in one ALTER USER MAPPING: OPTIONS (DROP client_secret, ADD client_secret_file '/path').")));
	if (has_id == (option_value(list, "access_token") != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 has_id ?
				 errmsg("option \"client_id\" does not go with \"access_token\"") :
				 errmsg("option \"client_id\" is required with a client secret")));
}

PG_FUNCTION_INFO_V1(accessreq_validator);

/*
 * validator(options text[], catalog oid): called with the whole list that an
 * object is to have.  Raises class HV errors, and 42501 for an option that
 * wants more rights than its setter has.
 */
Datum
accessreq_validator(PG_FUNCTION_ARGS)
{
	List	   *list = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *cell;

	foreach(cell, list)
	{
		DefElem    *def = (DefElem *) lfirst(cell);
		const TenantOption *option = find_option(def->defname, catalog);

		if (option == NULL)
			refuse_unknown(def->defname, catalog);
		check_value(option, defGetString(def));
		if (option->file_right)
			check_file_right(option);
	}
	if (catalog == ForeignServerRelationId)
		check_server_complete(list);
	else if (catalog == UserMappingRelationId)
		check_mapping_complete(list);
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------ which server */

static Oid
wrapper_oid(void)
{
	return get_foreign_data_wrapper_oid(WRAPPER_NAME, false);
}

bool
tenant_is_server(const char *name)
{
	Oid			serverid = get_foreign_server_oid(name, true);

	return OidIsValid(serverid) &&
		GetForeignServer(serverid)->fdwid == get_foreign_data_wrapper_oid(WRAPPER_NAME, true);
}

/* For errors about a role that may have been dropped meanwhile. */
static const char *
role_name(Oid userid)
{
	char	   *name = GetUserNameFromId(userid, true);

	return name ? name : psprintf("%u", userid);
}

/* The servers of the wrapper that the role may use: their number, and one. */
static int
usable_servers(Oid userid, Oid *one)
{
	Oid			wrapper = wrapper_oid();
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	int			n = 0;

	while ((tuple = systable_getnext(scan)) != NULL)
	{
		Form_pg_foreign_server form = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (form->srvfdw == wrapper &&
			compat_server_aclcheck(form->oid, userid, ACL_USAGE) == ACLCHECK_OK)
		{
			*one = form->oid;
			n++;
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return n;
}

Oid
tenant_resolve(const char *name, Oid userid)
{
	Oid			serverid = InvalidOid;
	int			n;

	if (name == NULL && accessreq_server != NULL && accessreq_server[0] != '\0')
		name = accessreq_server;
	if (name != NULL)
	{
		serverid = get_foreign_server_oid(name, true);
		if (!OidIsValid(serverid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("server \"%s\" does not exist", name),
					 errhint("Create it with CREATE SERVER … FOREIGN DATA WRAPPER accessreq.")));
		if (GetForeignServer(serverid)->fdwid != wrapper_oid())
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("server \"%s\" is not of foreign data wrapper \"%s\"",
							name, WRAPPER_NAME)));
		return serverid;
	}
	n = usable_servers(userid, &serverid);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no server that role \"%s\" may use",
						role_name(userid)),
				 errhint("Create one with CREATE SERVER … FOREIGN DATA WRAPPER accessreq, or ask its owner for GRANT USAGE ON FOREIGN SERVER.")));
	if (n > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_PARAMETER),
				 errmsg("it is not clear which server is meant: role \"%s\" may use %d of them",
						role_name(userid), n),
				 errhint("Name one with the argument server => '…', or set accessreq.server.")));
	return serverid;
}

void
tenant_check_usage(Oid serverid, Oid userid)
{
	AclResult	result = compat_server_aclcheck(serverid, userid, ACL_USAGE);

	if (result != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server \"%s\"",
						GetForeignServer(serverid)->servername),
				 errhint("Its owner can GRANT USAGE ON FOREIGN SERVER … TO \"%s\".",
						 role_name(userid))));
}

/* ------------------------------------------------------------------- cache */

typedef struct CacheKey
{
	Oid			serverid;
	Oid			userid;
} CacheKey;

/*
 * An entry lives in a context of its own for as long as it is in the table or
 * a caller holds it.
 */
typedef struct CachedTenant
{
	Tenant		tenant;			/* first: callers see only this */
	MemoryContext cxt;
	int			holders;
	bool		listed;			/* still in the table? */
	uint32		server_hash;	/* of the catalog row it was read from */
} CachedTenant;

typedef struct CacheSlot
{
	CacheKey	key;
	CachedTenant *entry;
} CacheSlot;

static HTAB *cache = NULL;

/* Counts invalidations: what was read before one may be stale. */
static uint64 invalidations = 0;

static void
discard(CachedTenant *entry)
{
	if (entry->listed || entry->holders > 0)
		return;
	if (entry->tenant.secret != NULL)
		explicit_bzero(entry->tenant.secret, strlen(entry->tenant.secret));
	MemoryContextDelete(entry->cxt);
}

/*
 * A server or a mapping changed: forget what was read from it.  For a mapping
 * that is everything: a new one for a role takes the place of PUBLIC's, which
 * has another hash.
 */
static void
on_invalidate(Datum arg, int cacheid, uint32 hash)
{
	HASH_SEQ_STATUS seq;
	CacheSlot  *slot;

	invalidations++;
	hash_seq_init(&seq, cache);
	while ((slot = hash_seq_search(&seq)) != NULL)
	{
		CachedTenant *entry = slot->entry;

		if (cacheid == FOREIGNSERVEROID && hash != 0 && hash != entry->server_hash)
			continue;
		hash_search(cache, &slot->key, HASH_REMOVE, NULL);
		entry->listed = false;
		discard(entry);
	}
}

static void
init_cache(void)
{
	HASHCTL		ctl;

	if (cache != NULL)
		return;
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(CacheKey);
	ctl.entrysize = sizeof(CacheSlot);
	ctl.hcxt = CacheMemoryContext;
	cache = hash_create("accessreq tenants", 16, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, on_invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, on_invalidate, (Datum) 0);
}

static int
int_option(List *list, const char *name, int flags, int otherwise)
{
	const char *value = option_value(list, name);
	int			number;

	/* the validator has seen it; what it refused cannot be here */
	if (value == NULL || !parse_int(value, &number, flags, NULL))
		return otherwise;
	return number;
}

static char *
copy_option(List *list, const char *name)
{
	const char *value = option_value(list, name);

	return value ? pstrdup(value) : NULL;
}

/* Fill in what the server says; in the entry's context. */
static void
read_server_options(Tenant *t, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, Anum_pg_foreign_server_srvoptions, desc, &isnull);
	List	   *list = isnull ? NIL : untransformRelOptions(datum);
	const char *api = option_value(list, "api");
	const char *read_only = option_value(list, "read_only");
	Url			url;

	t->server = pstrdup(NameStr(((Form_pg_foreign_server) GETSTRUCT(tuple))->srvname));
	t->base_url = copy_option(list, "base_url");
	if (t->base_url == NULL || api == NULL || url_parse(t->base_url, &url) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("server \"%s\" has no valid \"base_url\" and \"api\"", t->server),
				 errhint("Set them with ALTER SERVER.")));
	while (t->base_url[strlen(t->base_url) - 1] == '/')
		t->base_url[strlen(t->base_url) - 1] = '\0';
	t->host = url.host;
	t->endpoint = psprintf("%s://%s:%d", url.https ? "https" : "http", url.host, url.port);
	t->token_url = copy_option(list, "token_url");
	if (t->token_url == NULL)
		t->token_url = psprintf("%s/oauth/token", t->base_url);
	t->token_endpoint = url_parse(t->token_url, &url) != NULL ? t->token_url :
		psprintf("%s://%s:%d%s", url.https ? "https" : "http", url.host, url.port, url.path);
	for (int i = 0; i < API_VERSIONS; i++)
	{
		if (strcmp(api, tenant_api_names[i]) == 0)
			t->api = (ApiVersion) i;
	}
	t->ca_file = copy_option(list, "ca_file");
	t->proxy = copy_option(list, "proxy");
	t->user_agent = copy_option(list, "user_agent");
	if (t->user_agent == NULL)
		t->user_agent = psprintf("accessreq/%s (PostgreSQL %.20s)", ACCESSREQ_VERSION,
								 pnstrdup(PG_VERSION, strcspn(PG_VERSION, " ")));
	t->connect_timeout = int_option(list, "connect_timeout", GUC_UNIT_MS, -1);
	t->request_timeout = int_option(list, "request_timeout", GUC_UNIT_MS, -1);
	t->rate_limit = int_option(list, "rate_limit", 0, DEFAULT_RATE_LIMIT);
	t->max_concurrency = int_option(list, "max_concurrency", 0, DEFAULT_MAX_CONCURRENCY);
	t->read_only = false;
	if (read_only != NULL)
		(void) parse_bool(read_only, &t->read_only);
}

/* A copy of an option's value out of the array in the catalog, or NULL. */
static char *
copy_element(Datum *elements, int n, const char *name)
{
	size_t		len = strlen(name);

	for (int i = 0; i < n; i++)
	{
		const char *text = VARDATA_ANY(DatumGetPointer(elements[i]));
		size_t		size = VARSIZE_ANY_EXHDR(DatumGetPointer(elements[i]));

		if (size > len && memcmp(text, name, len) == 0 && text[len] == '=')
			return pnstrdup(text + len + 1, size - len - 1);
	}
	return NULL;
}

/*
 * Fill in what the mapping says.  GetUserMapping() would leave copies of the
 * secret about; here what was read is zeroed, and one copy stays with us.
 */
static void
read_mapping_options(Tenant *t, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, Anum_pg_user_mapping_umoptions, desc, &isnull);
	ArrayType  *array;
	Datum	   *elements;
	int			n;

	t->umid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->oid;
	if (isnull)
		return;
	array = DatumGetArrayTypePCopy(datum);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	t->client_id = copy_element(elements, n, "client_id");
	if ((t->secret = copy_element(elements, n, "client_secret")) != NULL)
		t->credential = CREDENTIAL_SECRET;
	else if ((t->secret = copy_element(elements, n, "client_secret_file")) != NULL)
		t->credential = CREDENTIAL_SECRET_FILE;
	else if ((t->secret = copy_element(elements, n, "access_token")) != NULL)
		t->credential = CREDENTIAL_TOKEN;
	explicit_bzero(array, VARSIZE(array));
	pfree(array);
	pfree(elements);
}

bool
tenant_has_own_mapping(Oid serverid, Oid userid)
{
	return SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
								 ObjectIdGetDatum(serverid));
}

/* Has the role a mapping, or PUBLIC? */
static bool
has_mapping(Oid serverid, Oid userid)
{
	return tenant_has_own_mapping(serverid, userid) ||
		tenant_has_own_mapping(serverid, InvalidOid);
}

/* GetUserMapping() says the same, but not what to do. */
static void
report_no_mapping(Oid serverid, Oid userid)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no user mapping for role \"%s\" on server \"%s\"",
					role_name(userid),
					GetForeignServer(serverid)->servername),
			 errhint("Create one with CREATE USER MAPPING … OPTIONS (client_id '…', client_secret '…'). That of a role it is a member of is not inherited: SET ROLE to use it.")));
}

void
tenant_check_mapping(Oid serverid, Oid userid)
{
	if (!has_mapping(serverid, userid))
		report_no_mapping(serverid, userid);
}

static void
read_server(Tenant *t, Snapshot snapshot)
{
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_foreign_server_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(t->serverid));
	scan = systable_beginscan(rel, ForeignServerOidIndexId, true, snapshot, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		read_server_options(t, tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (t->server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server with OID %u does not exist", t->serverid)));
}

/* The mapping of a role, or of PUBLIC (InvalidOid); false where there is none. */
static bool
read_mapping_of(Tenant *t, Oid role, Snapshot snapshot)
{
	Relation	rel = table_open(UserMappingRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_user_mapping_umuser, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(role));
	ScanKeyInit(&keys[1], Anum_pg_user_mapping_umserver, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(t->serverid));
	scan = systable_beginscan(rel, UserMappingUserServerIndexId, true, snapshot, 2, keys);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		read_mapping_options(t, tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return OidIsValid(t->umid);
}

static void
read_mapping(Tenant *t, Snapshot snapshot)
{
	if (!read_mapping_of(t, t->userid, snapshot) && !read_mapping_of(t, InvalidOid, snapshot))
		report_no_mapping(t->serverid, t->userid);
	if (t->secret == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("the user mapping for server \"%s\" has no credentials", t->server),
				 errhint("Set client_id and client_secret with ALTER USER MAPPING.")));
}

/*
 * Read an entry, both rows of it by one snapshot: the caches may have them of
 * two moments, the old URL with the new secret.
 */
static CachedTenant *
build_entry(Oid serverid, Oid userid)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq tenant",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	CachedTenant *entry = palloc0(sizeof(CachedTenant));
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(ForeignServerRelationId));

	entry->cxt = cxt;
	entry->tenant.serverid = serverid;
	entry->tenant.userid = userid;
	read_server(&entry->tenant, snapshot);
	read_mapping(&entry->tenant, snapshot);
	UnregisterSnapshot(snapshot);
	entry->server_hash = GetSysCacheHashValue1(FOREIGNSERVEROID, ObjectIdGetDatum(serverid));
	MemoryContextSwitchTo(old);
	return entry;
}

static void
list_entry(CachedTenant *entry, const CacheKey *key)
{
	bool		found;
	CacheSlot  *slot = hash_search(cache, key, HASH_ENTER, &found);

	MemoryContextSetParent(entry->cxt, CacheMemoryContext);
	entry->listed = true;
	slot->entry = entry;
}

/*
 * The entry of a server and a role, read where it is not in the table.
 *
 * Reading the catalogs may let an invalidation in, of which an entry that is
 * not listed yet does not hear.  Then it is good for this caller, and not
 * listed: to wait for a read without an invalidation would be to wait for ever
 * under debug_discard_caches.
 */
static CachedTenant *
lookup(Oid serverid, Oid userid)
{
	CacheKey	key = {serverid, userid};
	CacheSlot  *slot;
	CachedTenant *entry;
	uint64		before;

	init_cache();
	slot = hash_search(cache, &key, HASH_FIND, NULL);
	if (slot != NULL)
		return slot->entry;
	before = invalidations;
	entry = build_entry(serverid, userid);
	if (before == invalidations)
		list_entry(entry, &key);
	else
	{
		/* held by its caller alone, until his context ends */
		MemoryContextSetParent(entry->cxt, CacheMemoryContext);
	}
	return entry;
}

static void
release_holder(void *arg)
{
	CachedTenant *entry = (CachedTenant *) arg;

	entry->holders--;
	discard(entry);
}

static void
check_enabled(void)
{
	mode_check_not_upgrading();
	if (!accessreq_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("calls are switched off"),
				 errdetail("The setting accessreq.enabled is off."),
				 errhint("A superuser can switch it on, unless this is a clone that must stay silent.")));
}

static void
check_host(const char *text)
{
	Url			url;

	if (url_parse(text, &url) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("a URL of the server is not valid")));
	report_host(url.host, ERROR);
}

/* The entry stays as it is until "cxt" is reset. */
static const Tenant *
hold(Oid serverid, Oid userid, MemoryContext cxt)
{
	MemoryContextCallback *callback = MemoryContextAlloc(cxt, sizeof(MemoryContextCallback));
	CachedTenant *entry = lookup(serverid, userid);

	entry->holders++;
	callback->func = release_holder;
	callback->arg = entry;
	MemoryContextRegisterResetCallback(cxt, callback);
	return &entry->tenant;
}

const Tenant *
tenant_open(Oid serverid, Oid userid, MemoryContext cxt)
{
	const Tenant *tenant;

	check_enabled();
	tenant_check_usage(serverid, userid);
	tenant = hold(serverid, userid, cxt);
	check_host(tenant->base_url);
	check_host(tenant->token_url);
	return tenant;
}

const Tenant *
tenant_peek(const char *server, Oid userid, MemoryContext cxt)
{
	Oid			serverid = get_foreign_server_oid(server, true);

	if (!OidIsValid(serverid) || GetForeignServer(serverid)->fdwid != wrapper_oid() ||
		!has_mapping(serverid, userid))
		return NULL;
	return hold(serverid, userid, cxt);
}

int
tenant_request_timeout(const Tenant *tenant)
{
	return tenant->request_timeout >= 0 ? tenant->request_timeout : accessreq_request_timeout;
}

int
tenant_connect_timeout(const Tenant *tenant)
{
	return tenant->connect_timeout >= 0 ? tenant->connect_timeout : accessreq_connect_timeout;
}

/* ----------------------------------------------------------------- secrets */

static void
file_error(const char *path, const char *what)
{
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not %s client secret file \"%s\": %m", what, path),
			 errhint("The operating system's user that runs PostgreSQL must be able to read it.")));
}

/*
 * The rule of ssl_key_file: owned by the server's user, then nothing for group
 * and others; or owned by root, then the group may read.
 */
static void
check_secret_file(int fd, const char *path)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		file_error(path, "stat");
	if (!S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("client secret file \"%s\" is not a regular file", path)));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("client secret file \"%s\" must be owned by the database user or root", path)));
	if ((st.st_uid == geteuid() && (st.st_mode & (S_IRWXG | S_IRWXO))) ||
		(st.st_uid == 0 && (st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO))))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("client secret file \"%s\" has group or world access", path),
				 errdetail("File must have permissions u=rw (0600) or less if owned by the database user, or permissions u=rw,g=r (0640) or less if owned by root.")));
}

/* The bytes of a file, at most one more than a secret may have; their number. */
static ssize_t
read_file(const char *path, char *buffer)
{
	int			fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	ssize_t		n = -1;

	if (fd < 0)
		file_error(path, "open");
	/* who catches an error without a subtransaction has nobody to close it */
	PG_TRY();
	{
		check_secret_file(fd, path);
		n = read(fd, buffer, MAX_SECRET_FILE + 1);
		if (n < 0)
			file_error(path, "read");
	}
	PG_FINALLY();
	{
		CloseTransientFile(fd);
	}
	PG_END_TRY();
	return n;
}

static char *
read_secret_file(const char *path)
{
	char	   *secret = palloc(MAX_SECRET_FILE + 1);
	ssize_t		n = read_file(path, secret);

	if (n > MAX_SECRET_FILE)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("client secret file \"%s\" is larger than %d bytes", path, MAX_SECRET_FILE)));
	while (n > 0 && (secret[n - 1] == '\n' || secret[n - 1] == '\r'))
		n--;
	secret[n] = '\0';
	if (n == 0 || strlen(secret) != (size_t) n)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("client secret file \"%s\" is empty or is no text", path)));
	return secret;
}

char *
tenant_secret(const Tenant *tenant)
{
	if (tenant->credential == CREDENTIAL_SECRET_FILE)
		return read_secret_file(tenant->secret);
	return pstrdup(tenant->secret);
}
