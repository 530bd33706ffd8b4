/*-------------------------------------------------------------------------
 *
 * api.h
 *	  The endpoints of the Access Requests API: paths per API version, bodies,
 *	  and the documented limits that are checked before anything is sent.
 *
 * Texts given to these functions are UTF-8; every api_* function of an
 * endpoint fills in a CallSpec, allocated in the current memory context, and
 * raises class 22 errors for what the tenant is documented to refuse.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_API_H
#define ACCESSREQ_API_H

#include "call.h"
#include "json.h"
#include "tenant.h"

typedef enum ApiEndpoint
{
	API_CREATE,
	API_CANCEL,
	API_BULK_CANCEL,
	API_CLOSE,
	API_STATUS,
	API_CONFIG
} ApiEndpoint;

/* Documented limits. */
#define API_MAX_PAGE 250
#define API_MAX_BULK_CANCEL 50
#define API_MAX_CLOSE 500
#define API_MAX_ENTITLEMENTS 25
#define API_MAX_IDENTITIES 10

/* Ids in one filter: more do not fit a URL. */
#define API_MAX_IDS_IN_FILTER 50

/* Does the tenant's api have the call?  And the same, raising 0A000. */
extern bool api_has(const Tenant *tenant, ApiEndpoint endpoint);
extern void api_check_has(const Tenant *tenant, ApiEndpoint endpoint);

/* The date after which the api option's version stops, or NULL. */
extern const char *api_end_of_life(ApiVersion api);

/* NULL and "" both mean: not given. */
typedef struct ApiStatusQuery
{
	const char *requested_for;
	const char *requested_by;
	const char *regarding_identity;
	const char *assigned_to;
	const char *filters;
	const char *sorters;
	const char *request_state;
	int			limit;
	int64		offset;
	bool		count;
} ApiStatusQuery;

extern void api_check_status_query(const ApiStatusQuery *query);
extern void api_status(CallSpec *spec, const Tenant *tenant, const ApiStatusQuery *query);

/* How many access requests one filter may name. */
extern int	api_ids_per_filter(const Tenant *tenant);

/* Raises 22023 where the body breaks a documented rule. */
extern void api_check_create(const JsonValue *body);
/* "parsed" is the same body, checked. */
extern void api_create(CallSpec *spec, const Tenant *tenant, const char *body,
					   const JsonValue *parsed);

extern void api_cancel(CallSpec *spec, const Tenant *tenant,
					   const char *access_request_id, const char *comment);
extern void api_bulk_cancel(CallSpec *spec, const Tenant *tenant,
							const char *const *ids, int nids, const char *comment);
extern void api_check_comment(const char *comment);

extern void api_check_close(const char *execution_status, const char *completion_status);
extern void api_close(CallSpec *spec, const Tenant *tenant,
					  const char *const *ids, int nids, const char *message,
					  const char *execution_status, const char *completion_status);

extern void api_get_config(CallSpec *spec, const Tenant *tenant);
extern void api_put_config(CallSpec *spec, const Tenant *tenant, const char *body);

/* Any GET: "path" is checked and encoded, "query" is encoded already. */
extern void api_get(CallSpec *spec, const Tenant *tenant, const char *path,
					const char *query);

#endif							/* ACCESSREQ_API_H */
