/*-------------------------------------------------------------------------
 *
 * verdicts.c
 *	  verdict.c behind SQL functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "verdict.h"

PG_FUNCTION_INFO_V1(unit_verdict_of_answer);
PG_FUNCTION_INFO_V1(unit_verdict_of_finding);

static const char *const verdicts[] = {
	[VERDICT_DONE] = "done",
	[VERDICT_FAILED] = "failed",
	[VERDICT_UNKNOWN] = "unknown",
	[VERDICT_AGAIN] = "again",
	[VERDICT_ALONE] = "alone",
	[VERDICT_LOOK] = "look",
	[VERDICT_GIVE_UP] = "give up",
};

/* unit_verdict_of_answer(outcome integer, status integer, sqlstate text, n integer) */
Datum
unit_verdict_of_answer(PG_FUNCTION_ARGS)
{
	ApiError	error = {0};
	char	   *code = text_to_cstring(PG_GETARG_TEXT_PP(2));

	error.outcome = (ApiOutcome) PG_GETARG_INT32(0);
	error.status = PG_GETARG_INT32(1);
	error.sqlstate = MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]);
	PG_RETURN_TEXT_P(cstring_to_text(verdicts[verdict_of_answer(&error, PG_GETARG_INT32(3))]));
}

/*
 * unit_verdict_of_finding(kind integer, ids integer, sent boolean, finding integer[],
 * in_place boolean, age_s integer); finding: items, open, cancelled, requests,
 * wanted, items before
 */
Datum
unit_verdict_of_finding(PG_FUNCTION_ARGS)
{
	Action		action = {0};
	Finding		finding = {0};
	int32	   *numbers = (int32 *) ARR_DATA_PTR(PG_GETARG_ARRAYTYPE_P(3));

	action.kind = (ActionKind) PG_GETARG_INT32(0);
	action.nids = PG_GETARG_INT32(1);
	action.sent_at = PG_GETARG_BOOL(2) ? 0 : DT_NOBEGIN;
	finding.items = numbers[0];
	finding.open = numbers[1];
	finding.cancelled = numbers[2];
	finding.requests = numbers[3];
	finding.wanted = numbers[4];
	finding.items_before = numbers[5];
	finding.in_place = PG_GETARG_BOOL(4);
	PG_RETURN_TEXT_P(cstring_to_text(verdicts[verdict_of_finding(&action, &finding,
																 PG_GETARG_INT32(5) * USECS_PER_SEC)]));
}
