/*-------------------------------------------------------------------------
 *
 * item.h
 *	  A status item of the tenant: JSON to a C struct.
 *
 * Nothing in an item is guaranteed to be present, so every field can be
 * absent: a NULL pointer, ITEM_NO_TIME, or -1 for a boolean.  Strings are
 * UTF-8 and live as long as the context given to item_decode().
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_ITEM_H
#define ACCESSREQ_ITEM_H

#include "datatype/timestamp.h"
#include "json.h"

/* The key that identifies an item. */
#define ITEM_ID_KEY "accountActivityItemId"

#define ITEM_NO_TIME DT_NOBEGIN

/*
 * Version of the decoding rules: content hashes are seeded with it, so that a
 * release that decodes differently rewrites each stored row once.
 */
#define ITEM_DECODER_VERSION 2

/* Who: an identity or a governance group.  A name that is none is absent. */
typedef struct ItemRef
{
	const char *type;
	const char *id;
	const char *name;
} ItemRef;

typedef struct ItemApproval
{
	const char *approval_id;
	const char *status;
	const char *scheme;
	int			forwarded;		/* 1, 0, or -1 for absent */
	ItemRef		original_owner;
	ItemRef		current_owner;
	ItemRef		reviewed_by;
	const char *comment;
	TimestampTz modified;
	TimestampTz remove_date;
	const char *timeout_config; /* JSON text */
	const char *error_text;
} ItemApproval;

typedef struct ItemPhase
{
	const char *name;
	const char *state;
	const char *result;
	TimestampTz started;
	TimestampTz finished;
	const char *phase_reference;
} ItemPhase;

typedef struct ItemWorkItem
{
	const char *status;
	int			forwarded;
	ItemRef		original_owner;
	ItemRef		current_owner;
	TimestampTz modified;
} ItemWorkItem;

/* Not "Item": that is a type of PostgreSQL's storage/item.h. */
typedef struct StatusItem
{
	const char *account_activity_item_id;
	const char *access_request_id;
	const char *item_id;		/* "id" of the answer */
	const char *item_name;
	const char *item_type;
	const char *request_type;
	const char *state;
	ItemRef		requester;
	ItemRef		requested_for;
	const char *requester_comment;
	TimestampTz created;
	TimestampTz modified;
	TimestampTz start_date;
	TimestampTz remove_date;
	int			cancelable;
	const char *cancel_comment;
	TimestampTz cancelled_at;
	ItemRef		cancelled_by;
	const char *sod_state;
	const char **sod_policies;
	int			nsod_policies;	/* -1: no check was made */
	const char *description;
	const char *privilege_level;
	const char **source_names;	/* distinct */
	int			nsource_names;	/* -1: no requestedAccounts */
	const char *error_text;
	const char *client_metadata;	/* JSON text */
	ItemApproval *approvals;
	int			napprovals;
	ItemPhase  *phases;
	int			nphases;
	ItemWorkItem *work_items;
	int			nwork_items;
} StatusItem;

/*
 * Decode the JSON text of one item.  Returns false with *problem set (a
 * constant string) where it is not an object, has no id, or is not JSON; a
 * date that cannot be read is absent (the raw text keeps it), a value of
 * another type than expected likewise.  Everything it allocates is freed with
 * "cxt".
 */
extern bool item_decode(const char *text, size_t len, MemoryContext cxt,
						StatusItem *item, const char **problem);

/*
 * The same of an item that is shown and not stored: one that has no id is decoded
 * too, with none.
 */
extern bool item_decode_shown(const char *text, size_t len, MemoryContext cxt,
							  StatusItem *item, const char **problem);

/*
 * Read a date as the API writes them: ISO 8601 with seconds, milliseconds,
 * microseconds or none, with Z, an offset, or no zone (then UTC), or a date
 * alone.  ITEM_NO_TIME where it is none.
 */
extern TimestampTz item_parse_time(const char *text);

#endif							/* ACCESSREQ_ITEM_H */
