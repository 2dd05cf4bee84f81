#!/bin/bash
# as root COMMAND...     runs it
# as tester COMMAND...   runs it as the ordinary user tester, in a cgroup that is delegated to it:
#                        by a scope of its service manager, or as systemd would do it
# as session COMMAND...  runs it in a session of tester, which has a service manager but no cgroup
who=$1
shift
systemd=$(test -d /run/systemd/system && echo yes)
case $who$systemd in
root*) exec "$@" ;;
testeryes) set -- systemd-run --user --scope --quiet -p Delegate=yes "$@" ;;
sessionyes) ;;
tester)
	group=/sys/fs/cgroup/tester-$$
	mkdir "$group"
	chown tester: "$group"
	(cd "$group" && chown -f tester: $(cat /sys/kernel/cgroup/delegate))
	echo $$ >"$group/cgroup.procs"
	export HOME=/home/tester USER=tester LOGNAME=tester XDG_RUNTIME_DIR=/run/user/1000
	exec setpriv --reuid tester --regid tester --init-groups "$@"
	;;
*)
	echo "as: no $who in this guest" >&2
	exit 2
	;;
esac
readarray -t keep < <(env | grep ^CONTAINER_)
exec runuser -l tester -c "cd $(printf %q "$PWD") && exec $(printf '%q ' env "PATH=$PATH" "${keep[@]}" "$@")"
