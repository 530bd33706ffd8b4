/*-------------------------------------------------------------------------
 *
 * tenants.c
 *	  tenant.c behind SQL functions, in bad weather: invalidations that come in
 *	  the middle of a read.
 *
 * A build with debug_discard_caches has one at nearly every look at a catalog;
 * PostgreSQL's packages are no such build, so here they come at two looks of
 * tenant.c, by the function that such a build calls.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "accessreq.h"
#include "catalog/pg_user_mapping.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "redact.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(unit_tenant);
PG_FUNCTION_INFO_V1(unit_memory_copies);
PG_FUNCTION_INFO_V1(unit_redact_repeats);

/* What accessreq.c defines. */
char	   *accessreq_server = "";
char	   *accessreq_allowed_hosts = "127.0.0.1";
bool		accessreq_enabled = true;
int			accessreq_request_timeout = 1000;
int			accessreq_connect_timeout = 1000;

/* At each look; and run once, between the looks at the server and the mapping. */
static bool discarding = false;
static char *change = NULL;

static SysScanDesc
stormy_scan(Relation rel, Oid index, bool index_ok, Snapshot snapshot, int nkeys, ScanKey key)
{
	if (discarding)
		InvalidateSystemCaches();
	if (change != NULL && RelationGetRelid(rel) == UserMappingRelationId)
	{
		char	   *sql = change;

		change = NULL;
		SPI_connect();
		SPI_execute(sql, false, 0);
		SPI_finish();
		CommandCounterIncrement();
	}
	return systable_beginscan(rel, index, index_ok, snapshot, nkeys, key);
}

#define systable_beginscan stormy_scan
#include "../../src/tenant.c"

/*
 * unit_tenant(server text, discard bool, change text): base_url and secret, as
 * they are read while caches are discarded, or while a statement changes them.
 */
Datum
unit_tenant(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const Tenant *tenant;
	Oid			serverid = tenant_resolve(name, GetUserId());

	/* what was read before is not read again */
	InvalidateSystemCaches();
	discarding = PG_GETARG_BOOL(1);
	change = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	tenant = tenant_open(serverid, GetUserId(), CurrentMemoryContext);
	discarding = false;
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s %s", tenant->base_url, tenant->secret)));
}

/*
 * unit_memory_copies(reversed bytea): how often the bytes, which are given in
 * reverse so that the argument is no copy, stand in what this process can write
 * to and others do not share.
 */
Datum
unit_memory_copies(PG_FUNCTION_ARGS)
{
	bytea	   *reversed = PG_GETARG_BYTEA_PP(0);
	const char *last = VARDATA_ANY(reversed);
	size_t		len = VARSIZE_ANY_EXHDR(reversed);
	FILE	   *maps = AllocateFile("/proc/self/maps", "r");
	char		line[1024];
	int			copies = 0;

	if (maps == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open /proc/self/maps: %m")));
	while (fgets(line, sizeof(line), maps) != NULL)
	{
		unsigned long begin,
					end;
		char		rights[5];

		if (sscanf(line, "%lx-%lx %4s", &begin, &end, rights) != 3 ||
			strcmp(rights, "rw-p") != 0)
			continue;
		for (const char *p = (const char *) begin; p + len <= (const char *) end; p++)
		{
			size_t		n = 0;

			while (n < len && p[n] == last[len - 1 - n])
				n++;
			copies += n == len;
		}
	}
	FreeFile(maps);
	PG_RETURN_INT32(copies);
}

/* unit_redact_repeats(text, secret text) */
Datum
unit_redact_repeats(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(redact_repeats(text_to_cstring(PG_GETARG_TEXT_PP(0)),
								  text_to_cstring(PG_GETARG_TEXT_PP(1))));
}
