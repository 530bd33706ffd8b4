/* accessreq--1.0.sql: the SQL side of the extension, complete. */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION accessreq" to load this file. \quit

-- CREATE EXTENSION takes a schema of this name as it finds it.  Its owner could
-- replace whatever is made in it, and has perhaps put operators there that fit
-- what is written below better than PostgreSQL's own.  (For the latter reason
-- names and operators in expressions are qualified.)
DO $$
DECLARE
	owner pg_catalog.name;
BEGIN
	SELECT r.rolname INTO owner
	FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
	WHERE n.nspname OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.name
	AND r.rolname OPERATOR(pg_catalog.<>) CURRENT_USER AND NOT r.rolsuper;
	IF FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'insufficient_privilege',
			MESSAGE = pg_catalog.format('schema "%s" belongs to role "%s", which is neither the current user nor a superuser',
				'@extschema@', owner),
			HINT = 'Drop the schema, or see that it is empty and give it to yourself: ALTER SCHEMA @extschema@ OWNER TO CURRENT_USER.';
	END IF;
END
$$;

COMMENT ON SCHEMA @extschema@ IS
'SailPoint Identity Security Cloud access requests: functions that call the API, and tables that hold synced statuses';

GRANT USAGE ON SCHEMA accessreq TO PUBLIC;

-- ---------------------------------------------------------------------------
-- Connections: a SERVER is a tenant, secrets live on the USER MAPPING
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.validator(options text[], catalog oid)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_validator'
LANGUAGE C STRICT PARALLEL SAFE;
COMMENT ON FUNCTION accessreq.validator(text[], oid) IS
'checks the options of CREATE/ALTER SERVER and USER MAPPING; called by PostgreSQL, not by users';

CREATE FOREIGN DATA WRAPPER accessreq VALIDATOR accessreq.validator;
COMMENT ON FOREIGN DATA WRAPPER accessreq IS
'connections to SailPoint Identity Security Cloud tenants; doc/reference.md lists the options';

-- ---------------------------------------------------------------------------
-- The live row: what status(), status_of() return
-- ---------------------------------------------------------------------------

CREATE TYPE accessreq.item_status AS (
	account_activity_item_id	text,
	access_request_id			text,
	item_id						text,
	item_name					text,
	item_type					text,
	request_type				text,
	state						text,
	requester_id				text,
	requester_name				text,
	requested_for_id			text,
	requested_for_name			text,
	requester_comment			text,
	created						timestamptz,
	modified					timestamptz,
	start_date					timestamptz,
	remove_date					timestamptz,
	cancelable					boolean,
	cancel_comment				text,
	cancelled_at				timestamptz,
	cancelled_by_id				text,
	cancelled_by_name			text,
	sod_state					text,
	sod_policies				text[],
	description					text,
	privilege_level				text,
	source_names				text[],
	error_text					text,
	client_metadata				jsonb,
	raw							jsonb
);
COMMENT ON TYPE accessreq.item_status IS
'one requested item as the tenant reports it now; the columns of request_status that come from the API, and the whole answer in raw';
COMMENT ON COLUMN accessreq.item_status.account_activity_item_id IS 'the tenant''s identity of this requested item (accountActivityItemId)';
COMMENT ON COLUMN accessreq.item_status.access_request_id IS 'the access request this item belongs to (accessRequestId): what cancel and close take; null on some old rows';
COMMENT ON COLUMN accessreq.item_status.item_id IS 'the role, access profile or entitlement that was requested';
COMMENT ON COLUMN accessreq.item_status.item_name IS 'name of the requested item';
COMMENT ON COLUMN accessreq.item_status.item_type IS 'ACCESS_PROFILE, ROLE or ENTITLEMENT; text, because the tenant adds values without notice';
COMMENT ON COLUMN accessreq.item_status.request_type IS 'GRANT_ACCESS, REVOKE_ACCESS or MODIFY_ACCESS';
COMMENT ON COLUMN accessreq.item_status.state IS 'EXECUTING (also while waiting for approval), REQUEST_COMPLETED, CANCELLED, TERMINATED, PROVISIONING_VERIFICATION_PENDING, REJECTED, PROVISIONING_FAILED, NOT_ALL_ITEMS_PROVISIONED, ERROR, or what the tenant adds';
COMMENT ON COLUMN accessreq.item_status.requester_id IS 'identity that made the request';
COMMENT ON COLUMN accessreq.item_status.requester_name IS 'its name';
COMMENT ON COLUMN accessreq.item_status.requested_for_id IS 'identity the access is for';
COMMENT ON COLUMN accessreq.item_status.requested_for_name IS 'its name';
COMMENT ON COLUMN accessreq.item_status.requester_comment IS 'what the requester wrote';
COMMENT ON COLUMN accessreq.item_status.created IS 'when the request was made, by the tenant''s clock';
COMMENT ON COLUMN accessreq.item_status.modified IS 'when it last changed, by the tenant''s clock; can be null and does not move on every change';
COMMENT ON COLUMN accessreq.item_status.start_date IS 'when the access is to begin';
COMMENT ON COLUMN accessreq.item_status.remove_date IS 'when the access is to end';
COMMENT ON COLUMN accessreq.item_status.cancelable IS 'whether the tenant would accept a cancel: only before approval has passed; after that close it';
COMMENT ON COLUMN accessreq.item_status.cancel_comment IS 'why it was cancelled';
COMMENT ON COLUMN accessreq.item_status.cancelled_at IS 'when, by the tenant''s clock';
COMMENT ON COLUMN accessreq.item_status.cancelled_by_id IS 'identity that cancelled it';
COMMENT ON COLUMN accessreq.item_status.cancelled_by_name IS 'its name';
COMMENT ON COLUMN accessreq.item_status.sod_state IS 'outcome of the check for separation of duties';
COMMENT ON COLUMN accessreq.item_status.sod_policies IS 'names of the policies it violates';
COMMENT ON COLUMN accessreq.item_status.description IS 'description of the requested item';
COMMENT ON COLUMN accessreq.item_status.privilege_level IS 'how privileged the item is, where the tenant says';
COMMENT ON COLUMN accessreq.item_status.source_names IS 'distinct names of the sources of the requested accounts';
COMMENT ON COLUMN accessreq.item_status.error_text IS 'the item''s error messages, each once';
COMMENT ON COLUMN accessreq.item_status.client_metadata IS 'the key-value pairs that the requester attached to this item';
COMMENT ON COLUMN accessreq.item_status.raw IS 'the whole item as the tenant sends it, U+0000 and lone surrogates replaced by U+FFFD';

-- ---------------------------------------------------------------------------
-- Synced tables. Keys lead with server; no foreign key between them (it costs
-- half of a pull again); every unique key holds server and item id, so that
-- they can be partitioned.
-- ---------------------------------------------------------------------------

CREATE TABLE accessreq.request_status (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	access_request_id			text COLLATE "C",
	item_id						text COLLATE "C",
	item_name					text,
	item_type					text,
	request_type				text,
	state						text,
	requester_id				text COLLATE "C",
	requester_name				text,
	requested_for_id			text COLLATE "C",
	requested_for_name			text,
	requester_comment			text,
	created						timestamptz,
	modified					timestamptz,
	start_date					timestamptz,
	remove_date					timestamptz,
	cancelable					boolean,
	cancel_comment				text,
	cancelled_at				timestamptz,
	cancelled_by_id				text COLLATE "C",
	cancelled_by_name			text,
	sod_state					text,
	sod_policies				text[],
	description					text,
	privilege_level				text,
	source_names				text[],
	error_text					text,
	client_metadata				jsonb,
	raw							json,
	content_hash				bigint NOT NULL,
	first_seen_at				timestamptz NOT NULL,
	changed_at					timestamptz NOT NULL,
	missing_since				timestamptz,
	PRIMARY KEY (server, account_activity_item_id)
);
CREATE INDEX request_status_access_request_id_idx ON accessreq.request_status (access_request_id);
CREATE INDEX request_status_requested_for_id_idx ON accessreq.request_status (requested_for_id);
CREATE INDEX request_status_state_created_idx ON accessreq.request_status (state, created);
CREATE INDEX request_status_modified_idx ON accessreq.request_status (modified);
-- for the windows of a scan
CREATE INDEX request_status_created_idx ON accessreq.request_status (created);
-- the open rows, which every cycle of a pull reads; src/tables.h has the same words
CREATE INDEX request_status_open_idx ON accessreq.request_status (account_activity_item_id)
	WHERE missing_since IS NULL AND (state IS NULL OR state OPERATOR(pg_catalog.<>) ALL (ARRAY['REQUEST_COMPLETED', 'CANCELLED',
		'TERMINATED', 'REJECTED', 'PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR']::pg_catalog.text[]));
COMMENT ON TABLE accessreq.request_status IS
'access request statuses as last pulled, one row a requested item; an access request has one to several items with the same access_request_id';
COMMENT ON COLUMN accessreq.request_status.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.request_status.account_activity_item_id IS 'the tenant''s identity of this requested item (accountActivityItemId)';
COMMENT ON COLUMN accessreq.request_status.access_request_id IS 'the access request this item belongs to (accessRequestId): what cancel and close take; null on some old rows';
COMMENT ON COLUMN accessreq.request_status.item_id IS 'the role, access profile or entitlement that was requested';
COMMENT ON COLUMN accessreq.request_status.item_type IS 'ACCESS_PROFILE, ROLE or ENTITLEMENT; text, because the tenant adds values without notice';
COMMENT ON COLUMN accessreq.request_status.request_type IS 'GRANT_ACCESS, REVOKE_ACCESS or MODIFY_ACCESS';
COMMENT ON COLUMN accessreq.request_status.state IS 'EXECUTING (also while waiting for approval), REQUEST_COMPLETED, CANCELLED, TERMINATED, PROVISIONING_VERIFICATION_PENDING, REJECTED, PROVISIONING_FAILED, NOT_ALL_ITEMS_PROVISIONED, ERROR, or what the tenant adds';
COMMENT ON COLUMN accessreq.request_status.created IS 'when the request was made, by the tenant''s clock';
COMMENT ON COLUMN accessreq.request_status.modified IS 'when it last changed, by the tenant''s clock; can be null and does not move on every change';
COMMENT ON COLUMN accessreq.request_status.start_date IS 'when the access is to begin';
COMMENT ON COLUMN accessreq.request_status.remove_date IS 'when the access is to end';
COMMENT ON COLUMN accessreq.request_status.cancelable IS 'whether the tenant would accept a cancel: only before approval has passed; after that close it';
COMMENT ON COLUMN accessreq.request_status.sod_state IS 'outcome of the check for separation of duties';
COMMENT ON COLUMN accessreq.request_status.sod_policies IS 'names of the policies it violates';
COMMENT ON COLUMN accessreq.request_status.source_names IS 'distinct names of the sources of the requested accounts';
COMMENT ON COLUMN accessreq.request_status.error_text IS 'the item''s error messages, each once';
COMMENT ON COLUMN accessreq.request_status.client_metadata IS 'the key-value pairs that the requester attached to this item';
COMMENT ON COLUMN accessreq.request_status.raw IS 'the item as the tenant sent it, U+0000 and lone surrogates replaced by U+FFFD; cast to jsonb for operators, and list columns under DISTINCT and UNION, because json has no equality; null where raw is not kept';
COMMENT ON COLUMN accessreq.request_status.content_hash IS 'tells whether the item changed since it was stored; private to the extension, changes between releases';
COMMENT ON COLUMN accessreq.request_status.first_seen_at IS 'when it was first stored, by this machine''s clock';
COMMENT ON COLUMN accessreq.request_status.changed_at IS 'when the request was sent that brought the last change, by this machine''s clock';
COMMENT ON COLUMN accessreq.request_status.missing_since IS 'since when full scans do not return it; null while they do';
COMMENT ON COLUMN accessreq.request_status.item_name IS 'name of the requested item';
COMMENT ON COLUMN accessreq.request_status.requester_id IS 'identity that made the request';
COMMENT ON COLUMN accessreq.request_status.requester_name IS 'its name';
COMMENT ON COLUMN accessreq.request_status.requested_for_id IS 'identity the access is for';
COMMENT ON COLUMN accessreq.request_status.requested_for_name IS 'its name';
COMMENT ON COLUMN accessreq.request_status.requester_comment IS 'what the requester wrote';
COMMENT ON COLUMN accessreq.request_status.cancel_comment IS 'why it was cancelled';
COMMENT ON COLUMN accessreq.request_status.cancelled_at IS 'when, by the tenant''s clock';
COMMENT ON COLUMN accessreq.request_status.cancelled_by_id IS 'identity that cancelled it';
COMMENT ON COLUMN accessreq.request_status.cancelled_by_name IS 'its name';
COMMENT ON COLUMN accessreq.request_status.description IS 'description of the requested item';
COMMENT ON COLUMN accessreq.request_status.privilege_level IS 'how privileged the item is, where the tenant says';

CREATE TABLE accessreq.approval (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	ordinal						integer NOT NULL,
	approval_id					text COLLATE "C",
	status						text,
	scheme						text,
	forwarded					boolean,
	original_owner_type			text,
	original_owner_id			text COLLATE "C",
	original_owner_name			text,
	current_owner_type			text,
	current_owner_id			text COLLATE "C",
	current_owner_name			text,
	reviewed_by_id				text COLLATE "C",
	reviewed_by_name			text,
	comment						text,
	modified					timestamptz,
	remove_date					timestamptz,
	timeout_config				jsonb,
	error_text					text,
	pending_since				timestamptz,
	PRIMARY KEY (server, account_activity_item_id, ordinal)
);
CREATE INDEX approval_current_owner_id_idx ON accessreq.approval (current_owner_id)
	WHERE status OPERATOR(pg_catalog.=) 'PENDING'::pg_catalog.text;
COMMENT ON TABLE accessreq.approval IS
'the approvals of each item of request_status, in the tenant''s order (ordinal from 1)';
COMMENT ON COLUMN accessreq.approval.status IS 'PENDING, APPROVED, REJECTED, EXPIRED, CANCELLED, ARCHIVED, or what the tenant adds';
COMMENT ON COLUMN accessreq.approval.scheme IS 'which rule asked for this approval (APP_OWNER, MANAGER, WORKFLOW, …)';
COMMENT ON COLUMN accessreq.approval.pending_since IS 'since when the current owner holds it: when we saw it come to him, or, where it was pending at first sight, the tenant''s time of its last change; null where it is not pending';
COMMENT ON COLUMN accessreq.approval.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.approval.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.approval.ordinal IS 'place in the tenant''s list, from 1';
COMMENT ON COLUMN accessreq.approval.approval_id IS 'the tenant''s id of the approval, where it gives one';
COMMENT ON COLUMN accessreq.approval.forwarded IS 'whether it was passed on';
COMMENT ON COLUMN accessreq.approval.original_owner_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.approval.original_owner_id IS 'whom it was given to first';
COMMENT ON COLUMN accessreq.approval.original_owner_name IS 'that one''s name at the time';
COMMENT ON COLUMN accessreq.approval.current_owner_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.approval.current_owner_id IS 'who holds it now';
COMMENT ON COLUMN accessreq.approval.current_owner_name IS 'that one''s name at the time';
COMMENT ON COLUMN accessreq.approval.reviewed_by_id IS 'who decided';
COMMENT ON COLUMN accessreq.approval.reviewed_by_name IS 'that one''s name';
COMMENT ON COLUMN accessreq.approval.comment IS 'what the reviewer wrote';
COMMENT ON COLUMN accessreq.approval.modified IS 'when it last changed, by the tenant''s clock';
COMMENT ON COLUMN accessreq.approval.remove_date IS 'end of the access that the reviewer set';
COMMENT ON COLUMN accessreq.approval.timeout_config IS 'when and how it times out';
COMMENT ON COLUMN accessreq.approval.error_text IS 'its error messages, each once';

CREATE TABLE accessreq.phase (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	ordinal						integer NOT NULL,
	name						text,
	state						text,
	result						text,
	started						timestamptz,
	finished					timestamptz,
	phase_reference				text,
	PRIMARY KEY (server, account_activity_item_id, ordinal)
);
COMMENT ON TABLE accessreq.phase IS
'the phases each item of request_status goes through (approval, SoD check, provisioning, …), in the tenant''s order';
COMMENT ON COLUMN accessreq.phase.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.phase.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.phase.ordinal IS 'place in the tenant''s list, from 1';
COMMENT ON COLUMN accessreq.phase.name IS 'APPROVAL_PHASE, SOD_PHASE, PROVISIONING_PHASE, …';
COMMENT ON COLUMN accessreq.phase.state IS 'PENDING, EXECUTING, COMPLETED, CANCELLED, NOT_EXECUTED, or what the tenant adds';
COMMENT ON COLUMN accessreq.phase.result IS 'SUCCESSFUL or FAILED, once it is completed';
COMMENT ON COLUMN accessreq.phase.started IS 'when it began, by the tenant''s clock';
COMMENT ON COLUMN accessreq.phase.finished IS 'when it ended';
COMMENT ON COLUMN accessreq.phase.phase_reference IS 'the list of the item that the phase is about (approvalDetails, …)';

CREATE TABLE accessreq.manual_work_item (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	ordinal						integer NOT NULL,
	status						text,
	forwarded					boolean,
	original_owner_type			text,
	original_owner_id			text COLLATE "C",
	original_owner_name			text,
	current_owner_type			text,
	current_owner_id			text COLLATE "C",
	current_owner_name			text,
	modified					timestamptz,
	PRIMARY KEY (server, account_activity_item_id, ordinal)
);
COMMENT ON TABLE accessreq.manual_work_item IS
'the manual provisioning tasks of each item of request_status, in the tenant''s order';
COMMENT ON COLUMN accessreq.manual_work_item.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.manual_work_item.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.manual_work_item.ordinal IS 'place in the tenant''s list, from 1';
COMMENT ON COLUMN accessreq.manual_work_item.status IS 'PENDING, APPROVED, REJECTED, EXPIRED, CANCELLED, ARCHIVED, or what the tenant adds';
COMMENT ON COLUMN accessreq.manual_work_item.forwarded IS 'whether it was passed on';
COMMENT ON COLUMN accessreq.manual_work_item.original_owner_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.manual_work_item.original_owner_id IS 'whom it was given to first';
COMMENT ON COLUMN accessreq.manual_work_item.original_owner_name IS 'that one''s name at the time';
COMMENT ON COLUMN accessreq.manual_work_item.current_owner_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.manual_work_item.current_owner_id IS 'who holds it now';
COMMENT ON COLUMN accessreq.manual_work_item.current_owner_name IS 'that one''s name at the time';
COMMENT ON COLUMN accessreq.manual_work_item.modified IS 'when it last changed, by the tenant''s clock';

CREATE TABLE accessreq.state_change (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	observed_at					timestamptz NOT NULL,
	access_request_id			text COLLATE "C",
	old_state					text,
	new_state					text,
	modified					timestamptz,
	run_id						bigint,
	PRIMARY KEY (server, account_activity_item_id, observed_at)
);
COMMENT ON TABLE accessreq.state_change IS
'each observed change of an item''s state, which the tenant itself does not keep; old_state null is the first sight of it';
COMMENT ON COLUMN accessreq.state_change.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.state_change.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.state_change.access_request_id IS 'the access request the item belongs to';
COMMENT ON COLUMN accessreq.state_change.run_id IS 'the pull that saw it, in sync_run; null for refresh()';
COMMENT ON COLUMN accessreq.state_change.observed_at IS 'when the request was sent that brought it, by this machine''s clock';
COMMENT ON COLUMN accessreq.state_change.old_state IS 'null at first sight';
COMMENT ON COLUMN accessreq.state_change.new_state IS 'the state from then on';
COMMENT ON COLUMN accessreq.state_change.modified IS 'the tenant''s time of the change, where it moved';

CREATE TABLE accessreq.approval_change (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	ordinal						integer NOT NULL,
	observed_at					timestamptz NOT NULL,
	approval_id					text COLLATE "C",
	access_request_id			text COLLATE "C",
	modified					timestamptz,
	old_status					text,
	new_status					text,
	old_owner_id				text COLLATE "C",
	old_owner_name				text,
	new_owner_id				text COLLATE "C",
	new_owner_name				text,
	run_id						bigint,
	PRIMARY KEY (server, account_activity_item_id, ordinal, observed_at)
);
COMMENT ON TABLE accessreq.approval_change IS
'each observed change of an approval''s status or holder; old_status null is the first sight of it';
COMMENT ON COLUMN accessreq.approval_change.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.approval_change.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.approval_change.access_request_id IS 'the access request the item belongs to';
COMMENT ON COLUMN accessreq.approval_change.ordinal IS 'place in the tenant''s list, from 1';
COMMENT ON COLUMN accessreq.approval_change.run_id IS 'the pull that saw it, in sync_run; null for refresh()';
COMMENT ON COLUMN accessreq.approval_change.observed_at IS 'when the request was sent that brought it, by this machine''s clock';
COMMENT ON COLUMN accessreq.approval_change.approval_id IS 'the tenant''s id of the approval, where it gives one';
COMMENT ON COLUMN accessreq.approval_change.modified IS 'the tenant''s time of the change';
COMMENT ON COLUMN accessreq.approval_change.old_status IS 'null at first sight';
COMMENT ON COLUMN accessreq.approval_change.new_status IS 'the status from then on';
COMMENT ON COLUMN accessreq.approval_change.old_owner_id IS 'who held it before';
COMMENT ON COLUMN accessreq.approval_change.old_owner_name IS 'that one''s name';
COMMENT ON COLUMN accessreq.approval_change.new_owner_id IS 'who holds it from then on';
COMMENT ON COLUMN accessreq.approval_change.new_owner_name IS 'that one''s name';

CREATE TABLE accessreq.quarantined_item (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	item_hash					bigint NOT NULL,
	run_id						bigint,
	first_seen_at				timestamptz NOT NULL,
	last_seen_at				timestamptz NOT NULL,
	attempts					integer NOT NULL DEFAULT 1,
	error_code					text NOT NULL,
	error						text NOT NULL,
	item						bytea NOT NULL,
	PRIMARY KEY (server, account_activity_item_id, item_hash)
);
COMMENT ON TABLE accessreq.quarantined_item IS
'items that could not be stored, with the reason, so that one bad item never stops a pull; tried again at every full scan';
COMMENT ON COLUMN accessreq.quarantined_item.account_activity_item_id IS 'empty where none could be read';
COMMENT ON COLUMN accessreq.quarantined_item.error_code IS 'SQLSTATE of the error';
COMMENT ON COLUMN accessreq.quarantined_item.item IS 'the bytes as the tenant sent them; convert_from(item, ''UTF8'') where they are text';
COMMENT ON COLUMN accessreq.quarantined_item.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.quarantined_item.item_hash IS 'tells versions of an item apart';
COMMENT ON COLUMN accessreq.quarantined_item.run_id IS 'the pull that saw it, in sync_run; null for refresh()';
COMMENT ON COLUMN accessreq.quarantined_item.first_seen_at IS 'when it was first met';
COMMENT ON COLUMN accessreq.quarantined_item.last_seen_at IS 'when it was last met';
COMMENT ON COLUMN accessreq.quarantined_item.attempts IS 'how often storing it was tried';
COMMENT ON COLUMN accessreq.quarantined_item.error IS 'message of the error';

CREATE TABLE accessreq.missing_candidate (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	run_id						bigint NOT NULL,
	PRIMARY KEY (server, account_activity_item_id)
);
COMMENT ON TABLE accessreq.missing_candidate IS
'working table of a full scan: stored rows that the scan did not return; marked missing only at its end';
COMMENT ON COLUMN accessreq.missing_candidate.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.missing_candidate.account_activity_item_id IS 'the stored item';
COMMENT ON COLUMN accessreq.missing_candidate.run_id IS 'the scan that did not return it';

CREATE TABLE accessreq.sync_job (
	server						text COLLATE "C" PRIMARY KEY,
	owner						text COLLATE "C",
	owner_oid					oid,
	enabled						boolean NOT NULL DEFAULT false,
	every						interval NOT NULL DEFAULT '1 minute',
	reconcile_every				interval NOT NULL DEFAULT '1 day',
	keep						interval,
	keep_raw					boolean NOT NULL DEFAULT true,
	origin						text,
	tenant						text,
	timeline					integer,
	created_watermark			timestamptz,
	modified_watermark			timestamptz,
	null_modified				bigint NOT NULL DEFAULT 0,
	last_scan_at				timestamptz,
	next_scan_at				timestamptz,
	first_enabled_at			timestamptz,
	failures					integer NOT NULL DEFAULT 0,
	scan_failures				integer NOT NULL DEFAULT 0,
	scan_error					text,
	last_success_at				timestamptz,
	next_attempt_at				timestamptz,
	retry_after					timestamptz,
	last_error					text,
	retry_after_of				text COLLATE "C",
	held_at						timestamptz,
	held_by						text COLLATE "C"
);
COMMENT ON TABLE accessreq.sync_job IS
'one row a server that is pulled or has had actions: who owns the job and how it fares';
COMMENT ON COLUMN accessreq.sync_job.owner IS 'the role that pulled first: only its pulls set tenant, last_success_at and failures, and take up an interrupted pull';
COMMENT ON COLUMN accessreq.sync_job.origin IS 'the database this job belongs to (system identifier and database OID); accessreq.check() says when this is another, a copy';
COMMENT ON COLUMN accessreq.sync_job.tenant IS 'the tenant behind the token at the first pull; another one under the same server is an error';
COMMENT ON COLUMN accessreq.sync_job.last_scan_at IS 'when the last full scan that finished began';
COMMENT ON COLUMN accessreq.sync_job.next_scan_at IS 'when the next full scan is due; null: now';
COMMENT ON COLUMN accessreq.sync_job.first_enabled_at IS 'when start_sync() first enabled it; until then another role''s start_sync() takes it over';
COMMENT ON COLUMN accessreq.sync_job.null_modified IS 'how many rows without modified led the tenant''s order in the last cycle: where the next begins';
COMMENT ON COLUMN accessreq.sync_job.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.sync_job.owner_oid IS 'OID of that role: names are renamed and used again';
COMMENT ON COLUMN accessreq.sync_job.enabled IS 'whether the background worker pulls it';
COMMENT ON COLUMN accessreq.sync_job.every IS 'pause between pulls of what changed';
COMMENT ON COLUMN accessreq.sync_job.reconcile_every IS 'pause between full scans';
COMMENT ON COLUMN accessreq.sync_job.keep IS 'closed items older than this are not kept; null: for ever';
COMMENT ON COLUMN accessreq.sync_job.keep_raw IS 'whether request_status.raw is filled';
COMMENT ON COLUMN accessreq.sync_job.timeline IS 'timeline of the database when the job last ran';
COMMENT ON COLUMN accessreq.sync_job.created_watermark IS 'up to which created new rows are known, by the tenant''s clock';
COMMENT ON COLUMN accessreq.sync_job.modified_watermark IS 'up to which modified changes are known, by the tenant''s clock';
COMMENT ON COLUMN accessreq.sync_job.failures IS 'pulls that failed since the last that did not';
COMMENT ON COLUMN accessreq.sync_job.scan_failures IS 'full scans that failed since the last that did not; one that runs counts until it ends well';
COMMENT ON COLUMN accessreq.sync_job.scan_error IS 'why the last of them failed';
COMMENT ON COLUMN accessreq.sync_job.last_success_at IS 'when a pull last ended well';
COMMENT ON COLUMN accessreq.sync_job.next_attempt_at IS 'when the worker tries again';
COMMENT ON COLUMN accessreq.sync_job.retry_after IS 'until when the tenant asked to be left alone';
COMMENT ON COLUMN accessreq.sync_job.retry_after_of IS 'whose client that was told, where the job has no owner';
COMMENT ON COLUMN accessreq.sync_job.last_error IS 'why the last pull failed; null where it did not';
COMMENT ON COLUMN accessreq.sync_job.held_at IS 'since when actions are held back';
COMMENT ON COLUMN accessreq.sync_job.held_by IS 'who held them back';

CREATE TABLE accessreq.sync_run (
	run_id						bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	server						text COLLATE "C" NOT NULL,
	owner						text COLLATE "C" NOT NULL,
	pid							integer,
	kind						text NOT NULL,
	started						timestamptz NOT NULL,
	finished					timestamptz,
	pages						bigint NOT NULL DEFAULT 0,
	requests					bigint NOT NULL DEFAULT 0,
	rows_seen					bigint NOT NULL DEFAULT 0,
	rows_before					bigint NOT NULL DEFAULT 0,
	rows_total					bigint,
	rows_new					bigint NOT NULL DEFAULT 0,
	rows_changed				bigint NOT NULL DEFAULT 0,
	rows_missing				bigint NOT NULL DEFAULT 0,
	rows_quarantined			bigint NOT NULL DEFAULT 0,
	replaced_characters			bigint NOT NULL DEFAULT 0,
	rate_limited_waits			bigint NOT NULL DEFAULT 0,
	error						text,
	cursor						jsonb
);
CREATE INDEX sync_run_server_started_idx ON accessreq.sync_run (server, started);
CREATE INDEX sync_run_server_kind_idx ON accessreq.sync_run (server, kind, run_id);
CREATE INDEX sync_run_unfinished_idx ON accessreq.sync_run (server) WHERE finished IS NULL;
COMMENT ON TABLE accessreq.sync_run IS
'one row a pull: what it saw and changed, how it ended, and where it goes on after an interruption';
COMMENT ON COLUMN accessreq.sync_run.pid IS 'process that runs or ran it';
COMMENT ON COLUMN accessreq.sync_run.kind IS 'cycle: what may have changed; full: a scan of everything';
COMMENT ON COLUMN accessreq.sync_run.finished IS 'null while it runs, or when its process ended without a word; the next pull then goes on from its cursor';
COMMENT ON COLUMN accessreq.sync_run.requests IS 'requests to the tenant, tokens and retries included';
COMMENT ON COLUMN accessreq.sync_run.replaced_characters IS 'U+0000 and lone surrogates replaced by U+FFFD, which PostgreSQL cannot store';
COMMENT ON COLUMN accessreq.sync_run.rate_limited_waits IS 'how often it waited because the tenant answered 429';
COMMENT ON COLUMN accessreq.sync_run.error IS 'why it ended early; null for a pull that is complete';
COMMENT ON COLUMN accessreq.sync_run.cursor IS 'where it stands, committed with the rows it stands for';
COMMENT ON COLUMN accessreq.sync_run.run_id IS 'number of the pull';
COMMENT ON COLUMN accessreq.sync_run.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.sync_run.owner IS 'the role with whose mapping it pulls';
COMMENT ON COLUMN accessreq.sync_run.started IS 'when it began';
COMMENT ON COLUMN accessreq.sync_run.pages IS 'pages stored';
COMMENT ON COLUMN accessreq.sync_run.rows_seen IS 'items in those pages';
COMMENT ON COLUMN accessreq.sync_run.rows_before IS 'items that the interrupted pulls before it had read, where it takes one up';
COMMENT ON COLUMN accessreq.sync_run.rows_total IS 'items that the tenant has; null while unknown';
COMMENT ON COLUMN accessreq.sync_run.rows_new IS 'rows added';
COMMENT ON COLUMN accessreq.sync_run.rows_changed IS 'rows rewritten';
COMMENT ON COLUMN accessreq.sync_run.rows_missing IS 'rows marked missing';
COMMENT ON COLUMN accessreq.sync_run.rows_quarantined IS 'items put into quarantined_item';

-- no CHECK on kind and state, which the extension alone writes: they would be a
-- fifth of the cost of enqueueing
CREATE TABLE accessreq.action (
	id							bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	server						text COLLATE "C" NOT NULL,
	kind						text NOT NULL,
	request						jsonb NOT NULL,
	owner						text COLLATE "C" NOT NULL,
	enqueued_by					text COLLATE "C" NOT NULL,
	origin						text NOT NULL,
	owner_oid					oid NOT NULL,
	state						text NOT NULL DEFAULT 'queued',
	client_token				uuid,
	dedupe_key					text COLLATE "C",
	not_before					timestamptz,
	attempts					integer NOT NULL DEFAULT 0,
	enqueued_at					timestamptz NOT NULL,
	sent_at						timestamptz,
	settled_at					timestamptz,
	http_status					integer,
	answer						jsonb,
	error						text,
	error_code					text,
	tracking_id					text COLLATE "C",
	access_request_ids			text[] COLLATE "C"
);
CREATE UNIQUE INDEX action_dedupe_key_idx ON accessreq.action (server, owner, dedupe_key)
	WHERE dedupe_key IS NOT NULL
	AND state OPERATOR(pg_catalog.<>) ALL (ARRAY['failed', 'cancelled']::pg_catalog.text[]);
-- what is not settled, as the worker looks for it
CREATE INDEX action_due_idx ON accessreq.action (server, owner, owner_oid, state, (coalesce(not_before, enqueued_at)), id)
	WHERE settled_at IS NULL;
-- an access request is cancelled by one action at a time
CREATE UNIQUE INDEX action_cancel_idx ON accessreq.action (server, (access_request_ids[1]))
	WHERE kind OPERATOR(pg_catalog.=) 'cancel' AND settled_at IS NULL;
-- for the order of actions on the same access request
CREATE INDEX action_request_idx ON accessreq.action USING gin (access_request_ids) WITH (fastupdate = off)
	WHERE settled_at IS NULL;
CREATE INDEX action_merge_config_idx ON accessreq.action (server, id)
	WHERE kind OPERATOR(pg_catalog.=) 'merge_config' AND settled_at IS NULL;
CREATE INDEX action_settled_at_idx ON accessreq.action (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX action_trouble_idx ON accessreq.action (server, state)
	WHERE state OPERATOR(pg_catalog.=) ANY (ARRAY['failed', 'unknown']::pg_catalog.text[]);
COMMENT ON TABLE accessreq.action IS
'calls that were enqueued: sent by the worker once their transaction has committed, and what became of them. A reader sees the actions of the roles it is a member of, so a backup needs a superuser or BYPASSRLS';
COMMENT ON COLUMN accessreq.action.id IS 'number of the action, never used again';
COMMENT ON COLUMN accessreq.action.server IS 'the foreign server (tenant) it is for';
COMMENT ON COLUMN accessreq.action.kind IS 'create, cancel, close or merge_config';
COMMENT ON COLUMN accessreq.action.request IS 'what is sent: the API''s own body; for merge_config the patch';
COMMENT ON COLUMN accessreq.action.owner IS 'the role with whose mapping it is sent';
COMMENT ON COLUMN accessreq.action.enqueued_by IS 'the session''s user when it was enqueued';
COMMENT ON COLUMN accessreq.action.origin IS 'the database it belongs to: in a copy it waits for accessreq.adopt()';
COMMENT ON COLUMN accessreq.action.owner_oid IS 'OID of the owner';
COMMENT ON COLUMN accessreq.action.state IS 'queued; sending; done: the tenant accepted it; failed: it did not, error says why; unknown: the answer was lost, and while settled_at is null the worker looks whether it was carried out; cancelled by cancel_action()';
COMMENT ON COLUMN accessreq.action.client_token IS 'marks a create, so that it is found again: key accessreq_client_token in the clientMetadata of its items';
COMMENT ON COLUMN accessreq.action.dedupe_key IS 'one action for each key of an owner, unless it failed or was cancelled';
COMMENT ON COLUMN accessreq.action.not_before IS 'not sent before this';
COMMENT ON COLUMN accessreq.action.attempts IS 'how often it was about to be sent; more than once only where the tenant provably did not take it before, or after retry_action()';
COMMENT ON COLUMN accessreq.action.enqueued_at IS 'when it was written, by this machine''s clock';
COMMENT ON COLUMN accessreq.action.sent_at IS 'when it was last sent; null while it is queued';
COMMENT ON COLUMN accessreq.action.settled_at IS 'when its outcome was known, or looking for it given up; null while the worker has something to do';
COMMENT ON COLUMN accessreq.action.http_status IS 'HTTP status of the last answer';
COMMENT ON COLUMN accessreq.action.answer IS 'the tenant''s answer, or where that was lost what was found by looking';
COMMENT ON COLUMN accessreq.action.error IS 'why it failed or is unknown, or why it was not taken yet';
COMMENT ON COLUMN accessreq.action.error_code IS 'SQLSTATE of that error';
COMMENT ON COLUMN accessreq.action.tracking_id IS 'what the tenant''s support asks for';
COMMENT ON COLUMN accessreq.action.access_request_ids IS 'the access requests it is about; of a create those that it made or found open';

ALTER TABLE accessreq.action ENABLE ROW LEVEL SECURITY;
-- by name, so that a role that was dropped makes no query fail
CREATE POLICY action_of_own_roles ON accessreq.action FOR SELECT
	USING (EXISTS (SELECT FROM pg_catalog.pg_roles r
				   WHERE r.rolname OPERATOR(pg_catalog.=) action.owner
				   AND pg_catalog.pg_has_role(r.oid, 'MEMBER')));
COMMENT ON POLICY action_of_own_roles ON accessreq.action IS
'a reader sees the actions of the roles it is a member of';

-- lz4 where the server has it (raw takes two thirds of the CPU of pglz, the row
-- as a whole a little less), else the server's default
DO $$
DECLARE
	attribute pg_catalog.name;
BEGIN
	FOR attribute IN
		SELECT a.attname FROM pg_catalog.pg_attribute a
		WHERE a.attrelid OPERATOR(pg_catalog.=) 'accessreq.request_status'::pg_catalog.regclass::pg_catalog.oid
		AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
		AND a.attstorage OPERATOR(pg_catalog.=) ANY (ARRAY['x', 'm']::pg_catalog."char"[])
	LOOP
		EXECUTE pg_catalog.format(
			'ALTER TABLE accessreq.request_status ALTER COLUMN %I SET COMPRESSION lz4', attribute);
	END LOOP;
EXCEPTION WHEN feature_not_supported THEN
	NULL;
END
$$;

SELECT pg_catalog.pg_extension_config_dump('accessreq.request_status', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.approval', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.phase', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.manual_work_item', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.state_change', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.approval_change', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.quarantined_item', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.missing_candidate', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.sync_job', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.sync_run', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.sync_run_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.action', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.action_id_seq', '');

-- ---------------------------------------------------------------------------
-- Calls that are sent at once
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.check(server name DEFAULT NULL,
	OUT step text, OUT ok boolean, OUT detail text, OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_check'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 15;
COMMENT ON FUNCTION accessreq.check(name) IS
'what works on the way to the tenant, what does not, and what to do; raises for nothing that it tests';

CREATE FUNCTION accessreq.create(request jsonb, server name DEFAULT NULL,
	OUT requested_for text, OUT item_type text, OUT item_id text,
	OUT access_request_ids text[], OUT attributes_hash bigint, OUT existing boolean)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_create'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 10;
COMMENT ON FUNCTION accessreq.create(jsonb, name) IS
'submits an access request (the API''s own body) at once; a rollback does not take it back. The tenant processes it later; access that the person already holds is ignored and never listed. A revoke is for a manager''s direct reports or an ORG_ADMIN, never for oneself, and not for access by role membership or birthright';

CREATE FUNCTION accessreq.grant_request(requested_for text[], item_type text, item_id text,
	comment text DEFAULT NULL, start_date timestamptz DEFAULT NULL, remove_date timestamptz DEFAULT NULL,
	client_metadata jsonb DEFAULT NULL)
RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'accessreq_grant_request'
LANGUAGE C STABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION accessreq.grant_request(text[], text, text, text, timestamptz, timestamptz, jsonb) IS
'bodies for create() that grant an item to people, one for each 10 people where the item is an ENTITLEMENT, else one; sends nothing';

CREATE FUNCTION accessreq.revoke_request(requested_for text, item_type text, item_id text,
	comment text, remove_date timestamptz DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_revoke_request'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION accessreq.revoke_request(text, text, text, text, timestamptz) IS
'a body for create() that takes an item from one person; sends nothing. The tenant accepts it from a manager for direct reports or from an ORG_ADMIN, never for oneself, and not for access by role membership or birthright';

CREATE FUNCTION accessreq.cancel(access_request_id text, comment text, server name DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_cancel'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.cancel(text, text, name) IS
'cancels an access request, all its items, at once; a rollback does not take it back. Works only before approval has passed (afterwards: close). Returns the tenant''s answer';

CREATE FUNCTION accessreq.cancel_many(access_request_ids text[], comment text, server name DEFAULT NULL,
	OUT access_request_id text, OUT outcome text, OUT error text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_cancel_many'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50;
COMMENT ON FUNCTION accessreq.cancel_many(text[], text, name) IS
'cancels access requests at once, 50 a call where the api has bulk-cancel, else one by one. Works only before approval has passed (afterwards: close). A row an id: accepted, failed, unknown (the answer was lost: look before you send again) or not_sent';

CREATE FUNCTION accessreq.close(access_request_ids text[], message text DEFAULT NULL,
	execution_status text DEFAULT NULL, completion_status text DEFAULT NULL, server name DEFAULT NULL,
	OUT access_request_id text, OUT outcome text, OUT error text, OUT job_id text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_close'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50;
COMMENT ON FUNCTION accessreq.close(text[], text, text, text, name) IS
'closes access requests that are stuck, 500 a call; execution_status Terminated (default) or Completed, completion_status Success, Incomplete or Failure (default). accepted means that the tenant will close them: it reports the end in audit events alone, and fires the Provisioning Completed trigger for each request';

CREATE FUNCTION accessreq.status(requested_for text DEFAULT NULL, requested_by text DEFAULT NULL,
	regarding_identity text DEFAULT NULL, assigned_to text DEFAULT NULL, filters text DEFAULT NULL,
	sorters text DEFAULT NULL, request_state text DEFAULT NULL, max_rows bigint DEFAULT NULL,
	page_size integer DEFAULT NULL, row_offset bigint DEFAULT NULL, server name DEFAULT NULL)
RETURNS SETOF accessreq.item_status
AS 'MODULE_PATHNAME', 'accessreq_status'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 250;
COMMENT ON FUNCTION accessreq.status(text, text, text, text, text, text, text, bigint, integer, bigint, name) IS
'statuses as the tenant reports them now, all pages up to max_rows. filters and sorters are the API''s own: filters on accountActivityItemId, created, accessRequestId; sorters created, modified, accountActivityItemId, name, - before one descends; request_state only EXECUTING; requested_for and the like take an identity''s id or me. Requests for access that is already held are never listed';

CREATE FUNCTION accessreq.status_of(access_request_ids text[], server name DEFAULT NULL)
RETURNS SETOF accessreq.item_status
AS 'MODULE_PATHNAME', 'accessreq_status_of'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50;
COMMENT ON FUNCTION accessreq.status_of(text[], name) IS
'statuses of these access requests as the tenant reports them now, one row an item; no row for an id that the tenant does not list';

CREATE FUNCTION accessreq.count_status(requested_for text DEFAULT NULL, requested_by text DEFAULT NULL,
	regarding_identity text DEFAULT NULL, assigned_to text DEFAULT NULL, filters text DEFAULT NULL,
	request_state text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_count_status'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.count_status(text, text, text, text, text, text, name) IS
'how many statuses the tenant has for these filters (its X-Total-Count); arguments as for status()';

CREATE FUNCTION accessreq.get_config(server name DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_get_config'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.get_config(name) IS
'the tenant''s access request configuration; its shape differs by api';

CREATE FUNCTION accessreq.set_config(config jsonb, server name DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_set_config'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.set_config(jsonb, name) IS
'replaces the whole access request configuration at once and returns what the tenant answers; merge_config() changes parts';

CREATE FUNCTION accessreq.merge_config(patch jsonb, server name DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_merge_config'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.merge_config(jsonb, name) IS
'reads the configuration, merges patch into it and puts it back: objects merge, arrays and scalars replace, null is stored, nothing is removed. The API has no ETag: a change made by others between the two is overwritten';

CREATE FUNCTION accessreq.get(path text, query jsonb DEFAULT NULL, max_rows bigint DEFAULT NULL, server name DEFAULT NULL)
RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'accessreq_get'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 250;
COMMENT ON FUNCTION accessreq.get(text, jsonb, bigint, name) IS
'any GET of the tenant''s API: path below base_url with its version (''v2024/identities''), query an object of parameters; a row an element of an array, pages followed, or one row for an object';

-- ---------------------------------------------------------------------------
-- Pulls
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.refresh(access_request_ids text[], server name DEFAULT NULL,
	OUT account_activity_item_id text, OUT access_request_id text, OUT old_state text, OUT new_state text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_refresh'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50;
COMMENT ON FUNCTION accessreq.refresh(text[], name) IS
'reads these access requests from the tenant now and stores them in request_status; a row an item, old_state null where it was not stored yet';

CREATE PROCEDURE accessreq.sync(server name DEFAULT NULL, full_scan boolean DEFAULT false)
AS 'MODULE_PATHNAME', 'accessreq_sync'
LANGUAGE C;
COMMENT ON PROCEDURE accessreq.sync(name, boolean) IS
'pulls into request_status and its child tables now: what may have changed, and everything where that is due (at first, once a day, or with full_scan => true). Each page is committed by itself; an interrupted full scan goes on with the windows that are not stored yet. Not in a transaction block';

-- ---------------------------------------------------------------------------
-- Pulls from the background
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.start_sync(server name DEFAULT NULL, every interval DEFAULT NULL,
	reconcile_every interval DEFAULT NULL, keep interval DEFAULT NULL, keep_raw boolean DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_start_sync'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.start_sync(name, interval, interval, interval, boolean) IS
'keeps a server fresh from the background, with your user mapping: what changed every so often (at first 1 minute), everything every reconcile_every (1 day); closed items older than keep are neither pulled nor kept (for ever); raw is filled or not (true). Null leaves what is there. Takes effect at commit';

CREATE FUNCTION accessreq.stop_sync(server name DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_stop_sync'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.stop_sync(name) IS
'pulls a server from the background no more; the rows stay, CALL accessreq.sync() still works';

CREATE FUNCTION accessreq.start_worker()
RETURNS integer
AS 'MODULE_PATHNAME', 'accessreq_start_worker'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.start_worker() IS
'starts the background worker of this database, if none runs, and returns its process id; with accessreq in shared_preload_libraries it is only needed after stop_worker()';

CREATE FUNCTION accessreq.stop_worker()
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_stop_worker'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.stop_worker() IS
'ends the background worker of this database until start_worker() or a restart of the server';

CREATE FUNCTION accessreq.worker(OUT pid integer, OUT state text)
RETURNS record
AS 'MODULE_PATHNAME', 'accessreq_worker'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION accessreq.worker() IS
'the background worker of this database: its process id, and ''running'' or ''not running: '' and why';

CREATE FUNCTION accessreq.origin()
RETURNS text
AS 'MODULE_PATHNAME', 'accessreq_origin'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION accessreq.origin() IS
'which database this is, as in sync_job.origin: a copy or a restore is another';

CREATE FUNCTION accessreq.requests_left(server text, owner oid)
RETURNS integer
AS 'MODULE_PATHNAME', 'accessreq_requests_left'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION accessreq.requests_left(text, oid) IS
'requests left in the budget of these 10 seconds for the mapping of a role; null where there is no limit or nobody can say';

CREATE VIEW accessreq.sync_status AS
SELECT j.server, j.owner, j.enabled,
	CASE
		WHEN j.origin OPERATOR(pg_catalog.<>) accessreq.origin() THEN 'held'
		WHEN NOT j.enabled OR r.oid IS NULL THEN 'stopped'
		WHEN j.last_error IS NOT NULL OR j.scan_error IS NOT NULL THEN 'failing'
		WHEN j.lag OPERATOR(pg_catalog.>) j.allowed AND (j.last_scan_at IS NOT NULL OR w.pid IS NULL) THEN 'late'
		WHEN j.last_scan_at IS NULL OR EXISTS (SELECT FROM accessreq.quarantined_item q
			WHERE q.server OPERATOR(pg_catalog.=) j.server) THEN 'partial'
		ELSE 'ok'
	END AS health,
	CASE
		WHEN j.origin OPERATOR(pg_catalog.<>) accessreq.origin()
			THEN 'belongs to another database, of which this is a copy: accessreq.adopt()'
		WHEN j.owner IS NULL THEN 'accessreq.start_sync() was never called'
		WHEN r.oid IS NULL
			THEN pg_catalog.format('role "%s" does not exist, or is another by the same name: accessreq.adopt()', j.owner)
		WHEN NOT j.enabled AND j.first_enabled_at IS NULL THEN 'accessreq.start_sync() was never called'
		WHEN NOT j.enabled THEN 'stopped by accessreq.stop_sync()'
		WHEN j.last_error IS NOT NULL OR j.scan_error IS NOT NULL THEN coalesce(j.last_error, j.scan_error)
		WHEN j.lag OPERATOR(pg_catalog.>) j.allowed AND w.pid IS NULL AND NOT pg_catalog.pg_is_in_recovery() THEN w.state
		WHEN j.lag OPERATOR(pg_catalog.>) j.allowed AND j.last_scan_at IS NOT NULL THEN 'the last pull that ended well is too long ago'
		WHEN j.last_scan_at IS NULL THEN 'the first full scan has not ended'
		WHEN EXISTS (SELECT FROM accessreq.quarantined_item q WHERE q.server OPERATOR(pg_catalog.=) j.server)
			THEN 'accessreq.quarantined_item has items that could not be stored'
	END AS reason,
	pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) j.last_success_at) AS lag_seconds,
	j.last_success_at,
	j.failures OPERATOR(pg_catalog.+) CASE WHEN j.scan_error IS NULL OR j.last_scan_at IS NULL THEN 0 ELSE j.scan_failures END AS failures,
	j.next_attempt_at,
	j.retry_after,
	coalesce(j.last_error, j.scan_error) AS last_error,
	j.last_scan_at,
	j.next_scan_at,
	w.pid AS worker_pid,
	w.state AS worker,
	accessreq.requests_left(j.server, j.owner_oid) AS requests_left
FROM (
	SELECT s.*,
		pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)
			coalesce(s.last_success_at, s.first_enabled_at) AS lag,
		-- one pull may be late by another one's length, and a minute is nobody's concern
		s.every OPERATOR(pg_catalog.+) greatest(s.every, '1 minute'::pg_catalog.interval) AS allowed
	FROM accessreq.sync_job s
) j
LEFT JOIN pg_catalog.pg_roles r
	ON r.rolname OPERATOR(pg_catalog.=) j.owner::pg_catalog.name AND r.oid OPERATOR(pg_catalog.=) j.owner_oid
CROSS JOIN accessreq.worker() w;
COMMENT ON VIEW accessreq.sync_status IS
'how fresh each server is, and what is wrong where it is not';
COMMENT ON COLUMN accessreq.sync_status.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.sync_status.owner IS 'the role with whose mapping it is pulled';
COMMENT ON COLUMN accessreq.sync_status.enabled IS 'whether the background worker pulls it';
COMMENT ON COLUMN accessreq.sync_status.health IS 'ok; late: the last good pull is too long ago; failing: the last pull failed; partial: rows are missing, because the first full scan has not ended or items are in quarantine; held: it belongs to another database; stopped';
COMMENT ON COLUMN accessreq.sync_status.reason IS 'why it is not ok';
COMMENT ON COLUMN accessreq.sync_status.lag_seconds IS 'seconds since the last pull that ended well; also right on a standby';
COMMENT ON COLUMN accessreq.sync_status.last_success_at IS 'when that was';
COMMENT ON COLUMN accessreq.sync_status.failures IS 'pulls that failed since';
COMMENT ON COLUMN accessreq.sync_status.next_attempt_at IS 'when it is pulled next';
COMMENT ON COLUMN accessreq.sync_status.retry_after IS 'until when the tenant told us to stay away';
COMMENT ON COLUMN accessreq.sync_status.last_error IS 'why the last pull failed, or the last full scan';
COMMENT ON COLUMN accessreq.sync_status.last_scan_at IS 'when the last full scan that ended well began';
COMMENT ON COLUMN accessreq.sync_status.next_scan_at IS 'when the next is due';
COMMENT ON COLUMN accessreq.sync_status.worker_pid IS 'process id of this database''s worker, null where none runs';
COMMENT ON COLUMN accessreq.sync_status.worker IS 'running, or not running and why';
COMMENT ON COLUMN accessreq.sync_status.requests_left IS 'requests left in the budget of these 10 seconds; null where there is no limit, or accessreq is not preloaded';

CREATE VIEW accessreq.sync_progress AS
SELECT p.server, p.run_id, p.kind, p.pid, p.started, p.rows_seen, p.rows_total,
	CASE WHEN p.rows_total OPERATOR(pg_catalog.>) 0 THEN
		pg_catalog.round((100.0 OPERATOR(pg_catalog.*) p.rows_seen) OPERATOR(pg_catalog./) p.rows_total, 1)::pg_catalog.float8
	END AS percent,
	p.rate AS rows_per_second,
	CASE WHEN p.rows_total OPERATOR(pg_catalog.>=) p.rows_seen AND p.rate OPERATOR(pg_catalog.>) 0 THEN
		(p.rows_total OPERATOR(pg_catalog.-) p.rows_seen) OPERATOR(pg_catalog./) p.rate
	END AS seconds_left
FROM (
	SELECT r.server, r.run_id, r.kind, r.pid, r.started,
		r.rows_before OPERATOR(pg_catalog.+) r.rows_seen AS rows_seen, r.rows_total,
		r.rows_seen OPERATOR(pg_catalog./) greatest(pg_catalog.date_part('epoch',
			pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) r.started), 0.001) AS rate
	FROM accessreq.sync_run r
	WHERE r.finished IS NULL
	-- a process that has gone could not say so
	AND EXISTS (SELECT FROM pg_catalog.pg_locks l
		JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) l.database
		JOIN pg_catalog.pg_foreign_server f ON f.oid OPERATOR(pg_catalog.=) l.objid
		WHERE l.locktype OPERATOR(pg_catalog.=) 'object' AND l.granted
		AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
		AND f.srvname OPERATOR(pg_catalog.=) r.server::pg_catalog.name
		AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_foreign_server'::pg_catalog.regclass
		AND l.objsubid OPERATOR(pg_catalog.=) 1 AND l.pid OPERATOR(pg_catalog.=) r.pid)
) p;
COMMENT ON VIEW accessreq.sync_progress IS
'pulls under way: how far they are, and how long they will take at this rate. A cycle appears once it has found something new';
COMMENT ON COLUMN accessreq.sync_progress.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.sync_progress.run_id IS 'the run, in accessreq.sync_run';
COMMENT ON COLUMN accessreq.sync_progress.kind IS 'cycle: what may have changed; full: a scan of everything';
COMMENT ON COLUMN accessreq.sync_progress.pid IS 'process that runs it';
COMMENT ON COLUMN accessreq.sync_progress.started IS 'when it began, or was taken up';
COMMENT ON COLUMN accessreq.sync_progress.rows_seen IS 'rows read, those before it was taken up included';
COMMENT ON COLUMN accessreq.sync_progress.rows_total IS 'rows that the tenant has; null while unknown, and for a cycle';
COMMENT ON COLUMN accessreq.sync_progress.percent IS 'of these';
COMMENT ON COLUMN accessreq.sync_progress.rows_per_second IS 'since it began or was taken up';
COMMENT ON COLUMN accessreq.sync_progress.seconds_left IS 'at this rate';

-- ---------------------------------------------------------------------------
-- The queue: calls that belong to your transaction
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.enqueue_create(request jsonb,
	not_before timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_enqueue_create'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION accessreq.enqueue_create(jsonb, timestamptz, text, name) IS
'submits an access request after your transaction has committed, and not if it rolls back; returns the id in accessreq.action. not_before: not sent earlier. dedupe_key: a second call with the same key returns the first one''s id, unless that failed or was cancelled';

CREATE FUNCTION accessreq.enqueue_cancel(access_request_id text, comment text,
	not_before timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_enqueue_cancel'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION accessreq.enqueue_cancel(text, text, timestamptz, text, name) IS
'cancels an access request after your transaction has committed; returns the id in accessreq.action, of the one that is there where the request has a cancel of yours that is not settled yet. not_before and dedupe_key as for enqueue_create()';

CREATE FUNCTION accessreq.enqueue_close(access_request_ids text[], message text DEFAULT NULL,
	execution_status text DEFAULT NULL, completion_status text DEFAULT NULL,
	not_before timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_enqueue_close'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION accessreq.enqueue_close(text[], text, text, text, timestamptz, text, name) IS
'closes 1 to 500 access requests, in one call, after your transaction has committed; arguments as for close(), not_before and dedupe_key as for enqueue_create()';

CREATE FUNCTION accessreq.enqueue_merge_config(patch jsonb,
	not_before timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_enqueue_merge_config'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION accessreq.enqueue_merge_config(jsonb, timestamptz, text, name) IS
'merges patch into the tenant''s configuration after your transaction has committed: read, merged and put back when it is sent. not_before and dedupe_key as for enqueue_create()';

CREATE FUNCTION accessreq.retry_action(id bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_retry_action'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.retry_action(bigint) IS
'has an action that failed or is unknown sent again; of an unknown create it is your decision that the tenant does not have it';

CREATE FUNCTION accessreq.cancel_action(id bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'accessreq_cancel_action'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.cancel_action(bigint) IS
'takes an action out of the queue; false where it is not queued any more';

CREATE PROCEDURE accessreq.wait_for_action(id bigint, timeout interval DEFAULT '1 minute', INOUT state text DEFAULT NULL)
AS 'MODULE_PATHNAME', 'accessreq_wait_for_action'
LANGUAGE C;
COMMENT ON PROCEDURE accessreq.wait_for_action(bigint, interval, text) IS
'commits, and waits until an action is settled; its state then, or after timeout. Not in a transaction block';

CREATE FUNCTION accessreq.hold_actions(server name DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'accessreq_hold_actions'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.hold_actions(name) IS
'sends no more actions of a server, or of every server that you may hold, until release_actions(); returns how many servers that changed. What is on its way at the commit is not called back';

CREATE FUNCTION accessreq.release_actions(server name DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'accessreq_release_actions'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.release_actions(name) IS
'sends the actions again that hold_actions() held; returns how many servers that changed';

CREATE VIEW accessreq.action_queue AS
SELECT j.server,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.settled_at IS NULL
		AND a.state OPERATOR(pg_catalog.=) ANY (ARRAY['queued', 'sending']::pg_catalog.text[])) AS depth,
	pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) (
		SELECT pg_catalog.min(coalesce(a.not_before, a.enqueued_at)) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.settled_at IS NULL
		AND a.state OPERATOR(pg_catalog.=) 'queued'
		AND coalesce(a.not_before, a.enqueued_at) OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp())) AS oldest_seconds,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.settled_at IS NULL
		AND a.state OPERATOR(pg_catalog.=) 'queued'
		AND a.not_before OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()) AS scheduled,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.state OPERATOR(pg_catalog.=) 'failed') AS failed,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.state OPERATOR(pg_catalog.=) 'unknown') AS unknown,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server
		AND a.settled_at OPERATOR(pg_catalog.>)
			(pg_catalog.statement_timestamp() OPERATOR(pg_catalog.-) '1 minute'::pg_catalog.interval)) AS settled_per_minute,
	j.held_at, j.held_by
FROM accessreq.sync_job j;
COMMENT ON VIEW accessreq.action_queue IS
'how the queue of each server fares: counts alone, of the actions of all roles';
COMMENT ON COLUMN accessreq.action_queue.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.action_queue.depth IS 'actions that are queued, scheduled ones included, or being sent';
COMMENT ON COLUMN accessreq.action_queue.oldest_seconds IS 'for how long the oldest of those that are due waits; null where none does';
COMMENT ON COLUMN accessreq.action_queue.scheduled IS 'queued ones whose not_before is to come';
COMMENT ON COLUMN accessreq.action_queue.failed IS 'failed ones, as far as accessreq.action_retention keeps them';
COMMENT ON COLUMN accessreq.action_queue.unknown IS 'those of which nobody knows whether the tenant carried them out';
COMMENT ON COLUMN accessreq.action_queue.settled_per_minute IS 'settled in the last minute';
COMMENT ON COLUMN accessreq.action_queue.held_at IS 'since when hold_actions() holds them back';
COMMENT ON COLUMN accessreq.action_queue.held_by IS 'who called it';

-- ---------------------------------------------------------------------------
-- Life of a server
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.adopt(server name)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_adopt'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.adopt(name) IS
'after a restore or a copy: this database is from now on the one that pulls for the server and sends what changes its tenant';

CREATE FUNCTION accessreq.rename_server(old_name name, new_name name)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_rename_server'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.rename_server(name, name) IS
'after ALTER SERVER … RENAME: moves all rows from the old name to the new one';

CREATE FUNCTION accessreq.forget(server name, OUT table_name text, OUT deleted bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_forget'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 11;
COMMENT ON FUNCTION accessreq.forget(name) IS
'deletes all rows of a server, which need not exist any more; a row for each table with the number of rows that were deleted';

-- ---------------------------------------------------------------------------
-- Who may do what: nothing that calls out is PUBLIC's
-- ---------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
	accessreq.check(name),
	accessreq.create(jsonb, name),
	accessreq.cancel(text, text, name),
	accessreq.cancel_many(text[], text, name),
	accessreq.close(text[], text, text, text, name),
	accessreq.status(text, text, text, text, text, text, text, bigint, integer, bigint, name),
	accessreq.status_of(text[], name),
	accessreq.count_status(text, text, text, text, text, text, name),
	accessreq.get_config(name),
	accessreq.set_config(jsonb, name),
	accessreq.merge_config(jsonb, name),
	accessreq.get(text, jsonb, bigint, name),
	accessreq.refresh(text[], name),
	accessreq.start_sync(name, interval, interval, interval, boolean),
	accessreq.stop_sync(name),
	accessreq.start_worker(),
	accessreq.stop_worker(),
	accessreq.enqueue_create(jsonb, timestamptz, text, name),
	accessreq.enqueue_cancel(text, text, timestamptz, text, name),
	accessreq.enqueue_close(text[], text, text, text, timestamptz, text, name),
	accessreq.enqueue_merge_config(jsonb, timestamptz, text, name),
	accessreq.retry_action(bigint),
	accessreq.cancel_action(bigint),
	accessreq.hold_actions(name),
	accessreq.release_actions(name),
	accessreq.adopt(name),
	accessreq.rename_server(name, name),
	accessreq.forget(name)
FROM PUBLIC;
REVOKE ALL ON PROCEDURE accessreq.sync(name, boolean), accessreq.wait_for_action(bigint, interval, text)
FROM PUBLIC;
