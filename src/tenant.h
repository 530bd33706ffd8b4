/*-------------------------------------------------------------------------
 *
 * tenant.h
 *	  A tenant: the options of a SERVER and of the USER MAPPING with which a
 *	  role uses it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_TENANT_H
#define ACCESSREQ_TENANT_H

#include "postgres.h"

/* Values of the server option "api", in the order of tenant_api_names. */
typedef enum ApiVersion
{
	API_BETA,
	API_V3,
	API_V2024,
	API_V2025,
	API_V2026,
	API_V1
} ApiVersion;

#define API_VERSIONS 6

extern const char *const tenant_api_names[API_VERSIONS];

/* What the mapping proves who we are with. */
typedef enum CredentialKind
{
	CREDENTIAL_SECRET,			/* client_id, client_secret */
	CREDENTIAL_SECRET_FILE,		/* client_id, client_secret_file */
	CREDENTIAL_TOKEN			/* access_token */
} CredentialKind;

typedef struct Tenant
{
	Oid			serverid;
	Oid			userid;
	Oid			umid;			/* of the mapping: PUBLIC's has one too */
	char	   *server;			/* the server's name */
	char	   *base_url;		/* without a slash at its end */
	char	   *host;			/* of base_url, lower case */
	char	   *endpoint;		/* scheme://host:port, lower case */
	char	   *token_url;
	char	   *token_endpoint; /* the same as scheme://host:port/path */
	ApiVersion	api;
	char	   *ca_file;
	char	   *proxy;
	char	   *user_agent;
	int			connect_timeout;	/* ms; -1: the setting */
	int			request_timeout;	/* ms; -1: the setting */
	int			rate_limit;		/* requests in 10 s; 0: off */
	int			max_concurrency;
	bool		read_only;
	CredentialKind credential;
	char	   *client_id;		/* NULL with CREDENTIAL_TOKEN */
	char	   *secret;			/* the secret, the file's path, or the token */
} Tenant;

/*
 * The server meant by "name"; NULL means accessreq.server, else the only
 * server of this wrapper that the role may use.  Raises 42704 where there is
 * none, 42809 where it is another wrapper's, 42P08 where there are several.
 */
extern Oid	tenant_resolve(const char *name, Oid userid);

/* Whether there is a server of this name, of this wrapper. */
extern bool tenant_is_server(const char *name);

/* Raises 42501 where the role has no USAGE on the server. */
extern void tenant_check_usage(Oid serverid, Oid userid);

/* Raises 42704 where neither the role nor PUBLIC has a mapping on it. */
extern void tenant_check_mapping(Oid serverid, Oid userid);

/* Has the role one of its own, not PUBLIC's?  What is said of PUBLIC's. */
extern bool tenant_has_own_mapping(Oid serverid, Oid userid);
#define TENANT_PUBLIC_MAPPING_HINT \
	"Make it for one role, which owns SECURITY DEFINER functions for the others."

/*
 * The tenant as "userid" uses it, with rights checked: USAGE, a mapping for
 * the role or for PUBLIC, hosts that may receive secrets, accessreq.enabled.
 * The result is cached and shared; it stays as it is until "cxt" is reset,
 * also where the server or the mapping is altered meanwhile.
 */
extern const Tenant *tenant_open(Oid serverid, Oid userid, MemoryContext cxt);

/*
 * The same for one who only wants to know what it is: nothing is checked, and
 * NULL where there is no such server of this wrapper, or no mapping.
 */
extern const Tenant *tenant_peek(const char *server, Oid userid, MemoryContext cxt);

/*
 * The secret of a client, read from the file where the mapping names one;
 * palloc'd, to be zeroed by the caller.  Raises for a file that cannot be
 * read or that others may read.
 */
extern char *tenant_secret(const Tenant *tenant);

/* The setting, or the option of the server that wins over it; ms. */
extern int	tenant_request_timeout(const Tenant *tenant);
extern int	tenant_connect_timeout(const Tenant *tenant);

#endif							/* ACCESSREQ_TENANT_H */
