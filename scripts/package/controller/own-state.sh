systemd-sysusers /usr/lib/sysusers.d/cordon-controller.conf
install -d -m 0700 -o cordon-controller -g cordon-controller /var/lib/cordon-controller
