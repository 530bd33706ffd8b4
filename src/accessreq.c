/*-------------------------------------------------------------------------
 *
 * accessreq.c
 *	  _PG_init: settings; when preloaded shared memory, the launcher and a hook.
 *
 * All that is shared is asked for and made here, in one place; what is in it is
 * the business of the files that use it.
 *
 * Nothing here touches libcurl: this also runs in the postmaster, and what a
 * library starts there would be forked into every backend.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "accessreq.h"
#include "acted.h"
#include "launcher.h"
#include "fmgr.h"
#include "limiter.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utility.h"
#include "utils/guc.h"
#include "workers.h"

PG_MODULE_MAGIC;

#define DEFAULT_HOSTS \
	"*.api.identitynow.com, *.api.identitynow-demo.com, *.api.identitynowgov.com"

#define MINUTES_A_DAY (24 * 60)

/* Our lightweight locks, by number. */
#define LIMITER_LOCK 0
#define WORKERS_LOCK 1
#define NUM_LOCKS 2

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
bool		accessreq_deliver_actions = true;
int			accessreq_run_retention = 30 * MINUTES_A_DAY;
int			accessreq_action_retention = 365 * MINUTES_A_DAY;
int			accessreq_approval_expiry = 90 * MINUTES_A_DAY;
double		accessreq_missing_limit = 0.2;
int			accessreq_launcher_naptime = 60;
int			accessreq_max_budgets = 64;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

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

static void
define_pull_settings(void)
{
	DefineCustomIntVariable("accessreq.run_retention",
							"How long ended pulls are kept in accessreq.sync_run.",
							NULL,
							&accessreq_run_retention, 30 * MINUTES_A_DAY, 1, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomRealVariable("accessreq.missing_limit",
							 "Largest share of the open rows that one scan may mark missing.",
							 "A token that has lost rights sees fewer rows; a scan that would mark more marks none.",
							 &accessreq_missing_limit, 0.2, 0, 1,
							 PGC_SUSET, 0, NULL, NULL, NULL);
}

static void
define_queue_settings(void)
{
	DefineCustomBoolVariable("accessreq.deliver_actions",
							 "Whether the worker sends what was enqueued in accessreq.action.",
							 NULL,
							 &accessreq_deliver_actions, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("accessreq.action_retention",
							"How long settled actions are kept in accessreq.action.",
							"Their dedupe keys can be used again afterwards.",
							&accessreq_action_retention, 365 * MINUTES_A_DAY, 1, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
}

static void
define_report_settings(void)
{
	DefineCustomIntVariable("accessreq.approval_expiry",
							"After how long an approval expires, for accessreq.open_item.",
							"A date that the tenant names for an approval wins over it.",
							&accessreq_approval_expiry, 90 * MINUTES_A_DAY, 1, INT_MAX / 2,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
}

static void
define_worker_settings(void)
{
	/* of shared memory, which is laid out once; a process alone takes the default */
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("accessreq.max_budgets",
								"How many request budgets are counted at a time.",
								"One for each client and API version, and one for each role and server that has proven no client. Takes some 9 kB each.",
								&accessreq_max_budgets, 64, 8, 1000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("accessreq.launcher_naptime",
							"How often the launcher looks for new databases.",
							"A worker without anything to do looks around as often.",
							&accessreq_launcher_naptime, 60, 1, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

static void
on_shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(limiter_shmem_size()) + MAXALIGN(acted_shmem_size()) +
						   MAXALIGN(workers_shmem_size()));
	RequestNamedLWLockTranche("accessreq", NUM_LOCKS);
}

static void
on_shmem_startup(void)
{
	LWLockPadded *locks;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	locks = GetNamedLWLockTranche("accessreq");
	limiter_shmem_init(&locks[LIMITER_LOCK].lock);
	workers_shmem_init(&locks[WORKERS_LOCK].lock);
	acted_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

void
_PG_init(void)
{
	define_request_settings();
	define_guards();
	define_pull_settings();
	define_queue_settings();
	define_report_settings();
	define_worker_settings();
	MarkGUCPrefixReserved("accessreq");
	if (!process_shared_preload_libraries_in_progress)
		return;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = on_shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = on_shmem_startup;
	utility_install_hook();
	launcher_register();
}
