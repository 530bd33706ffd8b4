/*-------------------------------------------------------------------------
 *
 * row.h
 *	  A status item as Datums: what the synced tables and the live functions
 *	  have in common.
 *
 * Texts are converted from UTF-8 to the server's encoding here; one that
 * cannot be converted raises 22P05, and belongs to the item.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_ROW_H
#define ACCESSREQ_ROW_H

#include "item.h"

/*
 * The API's columns, in the order of type item_status and of request_status
 * (there after "server"), raw excluded: it comes next in both, as jsonb in one
 * and json in the other.
 */
#define ROW_API_COLUMNS 28

extern void row_from_item(const StatusItem *item, Datum *values, bool *nulls);

/* Does this state end a request?  OPEN_STATE of tables.h is its opposite. */
extern bool row_is_closed_state(const char *state);

/*
 * The API's columns of the child tables, in their order, after "ordinal".
 * approval.pending_since is ours and not among them.
 */
#define ROW_APPROVAL_COLUMNS 17
#define ROW_PHASE_COLUMNS 6
#define ROW_WORK_ITEM_COLUMNS 9

extern void row_from_approval(const ItemApproval *approval,
							  Datum *values, bool *nulls);
extern void row_from_phase(const ItemPhase *phase, Datum *values, bool *nulls);
extern void row_from_work_item(const ItemWorkItem *work_item,
							   Datum *values, bool *nulls);

/*
 * UTF-8 to a text Datum, and to a C string, in the server's encoding; where it
 * lacks a character 22P05 is raised, and by row_text_or_none() 0 returned.
 */
extern Datum row_text(const char *utf8, size_t len);
extern Datum row_text_or_none(const char *utf8, size_t len);
extern char *row_cstring(const char *utf8);

/*
 * UTF-8 JSON text to a jsonb Datum, and to a json Datum, which is not
 * validated: that is json_cut_page()'s doing.
 */
extern Datum row_jsonb(const char *utf8, size_t len);
extern Datum row_json(const char *utf8, size_t len);

#endif							/* ACCESSREQ_ROW_H */
