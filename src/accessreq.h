/*-------------------------------------------------------------------------
 *
 * accessreq.h
 *	  The settings of the extension, for all its files.
 *
 * They are defined in accessreq.c, with their ranges and documentation.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_H
#define ACCESSREQ_H

#include "postgres.h"

#define ACCESSREQ_VERSION "1.0"

extern char *accessreq_server;
extern int	accessreq_request_timeout;	/* ms */
extern int	accessreq_connect_timeout;	/* ms */
extern int	accessreq_max_response_size;	/* kB */
extern int	accessreq_max_retries;
extern char *accessreq_allowed_hosts;
extern bool accessreq_enabled;
extern bool accessreq_log_writes;
extern bool accessreq_deliver_actions;
extern int	accessreq_run_retention;	/* min */
extern int	accessreq_action_retention; /* min */
extern int	accessreq_approval_expiry;	/* min */
extern double accessreq_missing_limit;
extern int	accessreq_launcher_naptime;	/* s */
extern int	accessreq_max_budgets;

#endif							/* ACCESSREQ_H */
