/*-------------------------------------------------------------------------
 *
 * accessreq.c
 *	  _PG_init: settings, and shared memory when preloaded.
 *
 * Nothing here touches libcurl: this also runs in the postmaster, and what a
 * library starts there would be forked into every backend.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "accessreq.h"
#include "fmgr.h"
#include "limiter.h"
#include "miscadmin.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

#define DEFAULT_HOSTS \
	"*.api.identitynow.com, *.api.identitynow-demo.com, *.api.identitynowgov.com"

/* A day: what takes longer is no request. */
#define MAX_TIMEOUT_MS (24 * 60 * 60 * 1000)

char	   *accessreq_server = NULL;
int			accessreq_request_timeout = 30000;
int			accessreq_connect_timeout = 10000;
int			accessreq_max_response_size = 16 * 1024;
int			accessreq_max_retries = 3;
char	   *accessreq_allowed_hosts = NULL;
bool		accessreq_enabled = true;
bool		accessreq_log_writes = true;

extern PGDLLEXPORT void _PG_init(void);

static void
define_request_settings(void)
{
	DefineCustomStringVariable("accessreq.server",
							   "Server that the functions of accessreq use where none is named.",
							   "Empty: the only server of this wrapper that the role may use.",
							   &accessreq_server, "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("accessreq.request_timeout",
							"Longest time for one request, with its connection, retries and waits.",
							"The option request_timeout of a server wins over it.",
							&accessreq_request_timeout, 30000, 1, MAX_TIMEOUT_MS,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("accessreq.connect_timeout",
							"Longest time for making a connection.",
							"The option connect_timeout of a server wins over it.",
							&accessreq_connect_timeout, 10000, 1, MAX_TIMEOUT_MS,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("accessreq.max_response_size",
							"Largest answer that is read, after decompression.",
							NULL,
							&accessreq_max_response_size, 16 * 1024, 1, 1024 * 1024,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("accessreq.max_retries",
							"How often a request that only reads is tried again after a failure that can pass.",
							NULL,
							&accessreq_max_retries, 3, 0, 20,
							PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_guards(void)
{
	DefineCustomStringVariable("accessreq.allowed_hosts",
							   "Hosts that may receive a secret: host patterns, separated by commas.",
							   "\"*.\" before a domain stands for every name below it.",
							   &accessreq_allowed_hosts, DEFAULT_HOSTS,
							   PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("accessreq.enabled",
							 "Whether any call leaves this database.",
							 "A clone is started with this off.",
							 &accessreq_enabled, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("accessreq.log_writes",
							 "Logs one line for each call that changes something in the tenant.",
							 NULL,
							 &accessreq_log_writes, true, PGC_SUSET, 0, NULL, NULL, NULL);
}

void
_PG_init(void)
{
	define_request_settings();
	define_guards();
	MarkGUCPrefixReserved("accessreq");
	if (process_shared_preload_libraries_in_progress)
		limiter_init();
}
