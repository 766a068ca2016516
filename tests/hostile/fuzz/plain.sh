#!/bin/sh
# RUSTC_WRAPPER of the long run: the arithmetic of the backend is built without instrumentation. No target runs a model, and
# with it burn-flex alone takes 6 GB and more time than all other crates together.
rustc=$1
shift
crate=
before=
for word do
    [ "$before" = --crate-name ] && crate=$word
    before=$word
done
case $crate in
burn_* | gemm* | macerator | pulp | omniburn_kernels)
    for word do
        shift
        case $word in
        -Cpasses=sancov* | -Cllvm-args=-sanitizer* | -Cllvm-args=-simplifycfg* | -Zsanitizer=*) ;;
        *) set -- "$@" "$word" ;;
        esac
    done
    ;;
esac
exec "$rustc" "$@"
