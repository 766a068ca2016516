#!/bin/sh
# Keeps the last seven days of logs and packs the rest.
find /var/log/app -name '*.log' -mtime +1 -exec gzip {} +
find /var/log/app -name '*.log.gz' -mtime +7 -delete
