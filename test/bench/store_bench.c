/*-------------------------------------------------------------------------
 *
 * store_bench.c
 *	  store.c without a network: pages from memory or from SQL, for
 *	  test/bench/store.sh, which measures, and test/t/020_store.pl, which
 *	  tests.
 *
 * A module of its own, loaded by its path into a database that has the
 * extension's tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "item.h"
#include "json.h"
#include "store.h"
#include "store_bench.h"

PG_MODULE_MAGIC;

/* The locks want the OID of a server; any will do. */
#define BENCH_SERVER_OID ((Oid) 4711)

/* Rounds in which the cost of reading the clock is measured. */
#define CALIBRATION_ROUNDS 100000

#define NS_PER_S 1000000000LL

static int64 part_ns[BENCH_PARTS];
static int64 part_calls[BENCH_PARTS];
static int64 last_ns;

static const char *const part_names[BENCH_PARTS] = {
	[BENCH_CUT] = "verify and cut",
	[BENCH_HASH] = "hash, duplicates",
	[BENCH_LOOKUP] = "lookup",
	[BENCH_DECODE] = "parse and decode",
	[BENCH_DATUMS] = "datums, tuplestore",
	[BENCH_TABLE] = "request_status",
	[BENCH_TABLE_APPROVAL] = "approval",
	[BENCH_TABLE_PHASE] = "phase",
	[BENCH_TABLE_WORK_ITEM] = "manual_work_item",
	[BENCH_REST] = "marks, quarantine",
	[BENCH_OTHER] = "subtransaction, other",
	[BENCH_COMMIT] = "commit",
};

static int64
cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

void
bench_part(int part)
{
	int64		now = cpu_ns();

	part_ns[part] += now - last_ns;
	part_calls[part]++;
	last_ns = now;
}

/* Nanoseconds that one mark costs. */
static double
mark_cost(void)
{
	int64		start = cpu_ns();

	for (int i = 0; i < CALIBRATION_ROUNDS; i++)
		(void) cpu_ns();
	return (double) (cpu_ns() - start) / CALIBRATION_ROUNDS;
}


/* ----------------------------------------------------------------
 *		Items like the tenant's
 * ----------------------------------------------------------------
 */

static const char *const first_names[] = {
	"Alice", "Bogdan", "Chiara", "Dmitri", "Emeka", "Fatima", "Günther", "Hana"
};
static const char *const last_names[] = {
	"Anderson", "Brânză", "Castellano", "Dąbrowski", "Eze", "Fernández", "Großmann"
};
static const char *const states[] = {
	"REQUEST_COMPLETED", "REQUEST_COMPLETED", "REQUEST_COMPLETED", "CANCELLED",
	"EXECUTING", "REJECTED", "PROVISIONING_FAILED", "ERROR"
};
static const char *const sources[] = {
	"Active Directory", "Workday", "SAP ECC Production", "ServiceNow", "Okta"
};

/* A pseudorandom number that depends on the item and a salt alone. */
static uint64
pick(int64 i, int salt)
{
	uint64		key[2] = {(uint64) i, (uint64) salt};

	return hash_bytes_extended((const unsigned char *) key, sizeof(key), 1);
}

static void
append_id(StringInfo buf, int64 i, int salt)
{
	appendStringInfo(buf, "%016llx%016llx", (unsigned long long) pick(i, salt),
					 (unsigned long long) pick(i, salt + 1));
}

/* All that happens to an item happens within a few days. */
static void
append_time(StringInfo buf, int64 i, int salt)
{
	uint64		item = pick(i, 4);
	uint64		r = pick(i, salt);

	appendStringInfo(buf, "\"20%02d-%02d-%02dT%02d:%02d:%02d.%03dZ\"",
					 (int) (20 + item % 6), (int) (1 + item / 7 % 12),
					 (int) (1 + item / 89 % 26 + r % 3), (int) (r / 2503 % 24),
					 (int) (r / 60089 % 60), (int) (r / 3605341 % 60),
					 (int) (r / 216320473 % 1000));
}

static void
append_person(StringInfo buf, const char *key, int64 i, int salt)
{
	int64		person = (int64) (pick(i, salt) % 2000);

	appendStringInfo(buf, "\"%s\":{\"type\":\"IDENTITY\",\"id\":\"2c9180%010llx%016llx\",\"name\":\"%s %s\"}", key,
					 (unsigned long long) (pick(person, 900) >> 24),
					 (unsigned long long) pick(person, 901),
					 first_names[pick(person, 1) % lengthof(first_names)],
					 last_names[pick(person, 2) % lengthof(last_names)]);
}

static void
append_approvals(StringInfo buf, int64 i, int version)
{
	int			n = (int) (pick(i, 10) % 3);

	appendStringInfoString(buf, "\"approvalDetails\":[");
	for (int k = 0; k < n; k++)
	{
		appendStringInfo(buf, "%s{\"approvalId\":\"", k > 0 ? "," : "");
		append_id(buf, i, 20 + 2 * k);
		appendStringInfoString(buf, "\",\"forwarded\":false,");
		append_person(buf, "originalOwner", i, 30 + k);
		appendStringInfoChar(buf, ',');
		append_person(buf, "currentOwner", i, 30 + k);
		appendStringInfoString(buf, ",\"modified\":");
		append_time(buf, i, 40 + k + version);
		appendStringInfo(buf, ",\"status\":\"%s\",\"scheme\":\"%s\",\"errorMessages\":null,"
						 "\"comment\":null,\"removeDate\":null,",
						 version > 0 && k == 0 ? "EXPIRED" : "APPROVED",
						 k == 0 ? "MANAGER" : "APP_OWNER");
		append_person(buf, "reviewedBy", i, 30 + k);
		appendStringInfoString(buf, ",\"approverComments\":[],\"forwardHistory\":[]}");
	}
	appendStringInfoString(buf, "],");
}

static void
append_phases(StringInfo buf, int64 i)
{
	static const char *const names[] = {"APPROVAL_PHASE", "SOD_CHECK_PHASE", "PROVISIONING_PHASE"};
	int			n = 1 + (int) (pick(i, 11) % 3);

	appendStringInfoString(buf, "\"accessRequestPhases\":[");
	for (int k = 0; k < n; k++)
	{
		appendStringInfo(buf, "%s{\"started\":", k > 0 ? "," : "");
		append_time(buf, i, 50 + k);
		appendStringInfoString(buf, ",\"finished\":");
		append_time(buf, i, 60 + k);
		appendStringInfo(buf, ",\"name\":\"%s\",\"state\":\"COMPLETED\",\"result\":\"SUCCESSFUL\","
						 "\"phaseReference\":\"approvalDetails\"}", names[k]);
	}
	appendStringInfoString(buf, "],");
}

static void
append_work_items(StringInfo buf, int64 i)
{
	if (pick(i, 12) % 10 != 0)
	{
		appendStringInfoString(buf, "\"manualWorkItemDetails\":[],");
		return;
	}
	appendStringInfoString(buf, "\"manualWorkItemDetails\":[{\"forwarded\":true,");
	append_person(buf, "originalOwner", i, 70);
	appendStringInfoChar(buf, ',');
	append_person(buf, "currentOwner", i, 71);
	appendStringInfoString(buf, ",\"modified\":");
	append_time(buf, i, 72);
	appendStringInfoString(buf, ",\"status\":\"APPROVED\",\"forwardHistory\":[]}],");
}

static void
append_accounts(StringInfo buf, int64 i)
{
	int			n = (int) (pick(i, 13) % 2);

	appendStringInfoString(buf, "\"requestedAccounts\":[");
	for (int k = 0; k < n; k++)
	{
		appendStringInfo(buf, "%s{\"name\":\"account-%llu\",\"type\":\"ENTITLEMENT\",\"accountUuid\":\"{",
						 k > 0 ? "," : "", (unsigned long long) (pick(i, 80) % 100000));
		append_id(buf, i, 82 + 2 * k);
		appendStringInfo(buf, "}\",\"accountId\":\"CN=account,OU=Users,DC=acme,DC=example\",\"sourceName\":\"%s\"}",
						 sources[pick(i, 90 + k) % lengthof(sources)]);
	}
	appendStringInfoString(buf, "],");
}

/* Item i: its place in the order of ids is i. */
static void
append_item(StringInfo buf, int64 i, int version)
{
	appendStringInfoString(buf, "{\"id\":\"");
	append_id(buf, (int64) (pick(i, 14) % 500), 800);
	appendStringInfo(buf, "\",\"name\":\"Engineering tools %llu\",\"type\":\"ACCESS_PROFILE\",",
					 (unsigned long long) (pick(i, 14) % 500));
	appendStringInfo(buf, "\"cancelledRequestDetails\":null,\"errorMessages\":null,\"state\":\"%s\",",
					 version > 0 ? "TERMINATED" : states[pick(i, 3) % lengthof(states)]);
	append_approvals(buf, i, version);
	append_work_items(buf, i);
	appendStringInfo(buf, "\"approvalIds\":[],\"" ITEM_ID_KEY "\":\"%012llx%020llx\",",
					 (unsigned long long) i * 97, (unsigned long long) pick(i, 5));
	appendStringInfoString(buf, "\"requestType\":\"GRANT_ACCESS\",\"modified\":");
	append_time(buf, i, 6 + version);
	appendStringInfoString(buf, ",\"created\":");
	append_time(buf, i, 7);
	appendStringInfoChar(buf, ',');
	append_person(buf, "requester", i, 8);
	appendStringInfoChar(buf, ',');
	append_person(buf, "requestedFor", i, pick(i, 22) % 2 ? 8 : 9);	/* half for themselves */
	appendStringInfo(buf, ",\"requesterComment\":{\"comment\":\"for project %llu \\u003d Q3 rollout, see the ticket\",\"created\":",
					 (unsigned long long) (pick(i, 15) % 900));
	append_time(buf, i, 16);
	appendStringInfoChar(buf, ',');
	append_person(buf, "author", i, 8);
	appendStringInfoString(buf, "},\"sodViolationContext\":");
	if (pick(i, 23) % 3 == 0)
	{
		appendStringInfoString(buf, "{\"state\":\"SUCCESS\",\"uuid\":\"");
		append_id(buf, i, 17);
		appendStringInfoString(buf, "\",\"violationCheckResult\":{\"message\":null,\"clientMetadata\":null,"
							   "\"violationContexts\":[],\"violatedPolicies\":[]}}");
	}
	else
		appendStringInfoString(buf, "null");
	appendStringInfoString(buf, ",\"provisioningDetails\":{\"orderedSubPhaseReferences\":\"manualWorkItemDetails\"},"
						   "\"preApprovalTriggerDetails\":null,");
	append_phases(buf, i);
	append_accounts(buf, i);
	appendStringInfoString(buf, "\"description\":\"Access to the build farm, the artifact store and the issue tracker of engineering, by role and site. Reviewed twice a year by the application owner.\","
						   "\"startDate\":null,\"removeDate\":null,\"cancelable\":false,\"accessRequestId\":\"");
	append_id(buf, i / 2, 18);
	appendStringInfoString(buf, "\",\"clientMetadata\":");
	if (pick(i, 24) % 2 == 0)
	{
		appendStringInfoString(buf, "{\"requestedAppId\":\"");
		append_id(buf, i / 2, 19);
		appendStringInfoString(buf, "\",\"requestedAppName\":\"Engineering tools\"}");
	}
	else
		appendStringInfoString(buf, "null");
	appendStringInfo(buf, ",\"privilegeLevel\":%s,\"identityType\":\"HUMAN\",\"form\":null,\"jitDetails\":null,"
					 "\"reauthorizationRequired\":false,\"accessRequestContext\":null,\"privileged\":false}",
					 pick(i, 21) % 2 ? "\"LOW\"" : "null");
}

PG_FUNCTION_INFO_V1(store_bench_item);
Datum
store_bench_item(PG_FUNCTION_ARGS)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_item(&buf, PG_GETARG_INT64(0), PG_GETARG_INT32(1));
	PG_RETURN_BYTEA_P(cstring_to_text_with_len(buf.data, buf.len));
}


/* ----------------------------------------------------------------
 *		One page from SQL
 * ----------------------------------------------------------------
 */

static void
cut_page(char *page, size_t len, StorePage *result)
{
	const char *problem = NULL;

	if (!json_cut_page(page, len, ITEM_ID_KEY, &result->items, &result->nitems, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_JSON_TEXT),
				 errmsg("page is not an array: %s", problem)));
}

static Datum
outcome_array(const StoreOutcome *outcomes, int n)
{
	Datum	   *texts = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		texts[i] = CStringGetTextDatum(psprintf("%s %s %s -> %s",
												outcomes[i].account_activity_item_id,
												outcomes[i].access_request_id ? outcomes[i].access_request_id : "-",
												outcomes[i].old_state ? outcomes[i].old_state : "-",
												outcomes[i].new_state ? outcomes[i].new_state : "-"));
	return PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * store_bench_page(server text, page bytea, sent_at timestamptz, keep_raw bool,
 *				 lock bool, OUT seen, added, changed, quarantined, replaced, outcomes text[])
 */
PG_FUNCTION_INFO_V1(store_bench_page);
Datum
store_bench_page(PG_FUNCTION_ARGS)
{
	StorePage	page = {.keep_since = DT_NOBEGIN};
	StoreCounts counts = {0};
	StoreOutcome *outcomes;
	int			noutcomes;
	bytea	   *bytes = PG_GETARG_BYTEA_P_COPY(1);
	TupleDesc	tupdesc;
	Datum		values[6];
	bool		nulls[6] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	page.server = text_to_cstring(PG_GETARG_TEXT_PP(0));
	page.serverid = BENCH_SERVER_OID;
	page.run_id = 7;
	page.sent_at = PG_GETARG_TIMESTAMPTZ(2);
	page.keep_raw = PG_GETARG_BOOL(3);
	if (PG_GETARG_BOOL(4))
		store_lock_page(BENCH_SERVER_OID);
	cut_page(VARDATA(bytes), VARSIZE(bytes) - VARHDRSZ, &page);
	store_page(&page, &counts, &outcomes, &noutcomes);

	values[0] = Int64GetDatum(counts.seen);
	values[1] = Int64GetDatum(counts.added);
	values[2] = Int64GetDatum(counts.changed);
	values[3] = Int64GetDatum(counts.quarantined);
	values[4] = Int64GetDatum(counts.replaced);
	values[5] = outcome_array(outcomes, noutcomes);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}


/* ----------------------------------------------------------------
 *		A whole pull
 * ----------------------------------------------------------------
 */

static void
report(int64 rows, int64 ns, const StoreCounts *counts)
{
	double		mark = mark_cost();
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = BENCH_CUT; i < BENCH_PARTS; i++)
	{
		double		us = (part_ns[i] - mark * part_calls[i]) / 1000.0 / rows;

		ns -= (int64) (mark * part_calls[i]);
		appendStringInfo(&buf, "  %-22s %6.2f\n", part_names[i], Max(us, 0));
	}
	ereport(NOTICE,
			(errmsg_internal("us of CPU an item\n%s  %-22s %6.2f\n"
							 "  %lld seen, %lld new, %lld changed, %lld quarantined",
							 buf.data, "sum", ns / 1000.0 / rows,
							 (long long) counts->seen, (long long) counts->added,
							 (long long) counts->changed, (long long) counts->quarantined)));
}

/* Store one page of generated items and commit it. */
static void
bench_page(int64 first, int64 end, int version, int every, StoreCounts *counts)
{
	StorePage	page = {
		.keep_since = DT_NOBEGIN,
		.server = "acme", .serverid = BENCH_SERVER_OID, .in_pull = true, .keep_raw = true
	};
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '[');
	for (int64 i = first; i < end; i++)
	{
		append_item(&buf, i, every > 0 && i % every == 0 ? version : 0);
		appendStringInfoChar(&buf, i + 1 < end ? ',' : ']');
	}
	bench_part(BENCH_GENERATE);
	page.sent_at = GetCurrentTimestamp();
	cut_page(buf.data, buf.len, &page);
	bench_part(BENCH_CUT);
	store_lock_page(BENCH_SERVER_OID);
	store_page(&page, counts, NULL, NULL);
	bench_part(BENCH_OTHER);
	SPI_commit();
	bench_part(BENCH_COMMIT);
}

/*
 * store_bench_pull(rows bigint, page_size int, version int, every int): pulls
 * rows items; each every'th has the version.
 */
PG_FUNCTION_INFO_V1(store_bench_pull);
Datum
store_bench_pull(PG_FUNCTION_ARGS)
{
	int64		rows = PG_GETARG_INT64(0);
	int			page_size = PG_GETARG_INT32(1);
	StoreCounts counts = {0};
	int64		start;
	MemoryContext cxt = AllocSetContextCreate(PortalContext, "store_bench",
											  ALLOCSET_DEFAULT_SIZES);

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	store_lock_pull(BENCH_SERVER_OID, true);
	SPI_commit();
	memset(part_ns, 0, sizeof(part_ns));
	memset(part_calls, 0, sizeof(part_calls));
	last_ns = start = cpu_ns();
	for (int64 i = 0; i < rows; i += page_size)
	{
		MemoryContext oldcxt = MemoryContextSwitchTo(cxt);

		bench_page(i, Min(i + page_size, rows), PG_GETARG_INT32(2), PG_GETARG_INT32(3),
				   &counts);
		MemoryContextSwitchTo(oldcxt);
		MemoryContextReset(cxt);
	}
	report(rows, cpu_ns() - start - part_ns[BENCH_GENERATE], &counts);
	store_unlock_pull(BENCH_SERVER_OID);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Bytes of this process's memory contexts: growth is a leak. */
PG_FUNCTION_INFO_V1(store_bench_memory);
Datum
store_bench_memory(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) MemoryContextMemAllocated(TopMemoryContext, true));
}
