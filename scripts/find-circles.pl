#!/usr/bin/perl
# Finds circles of files that import each other, in each crate: `find-circles.pl [CRATE-FOLDER...]`, or `--self-test`.
#
# A file imports another when it names something that is defined there: by `use`, or by a path in the code. A name is
# followed through modules that only pass it on (`pub use`), so such a module is not part of a circle. Tests do not count.
# What a file takes from a module that it is a part of, its parent in the tree of modules, does not count either, unless
# `--with-parents` stands first.
# Prints each circle with the names that tie it, and exits with 1 when there is any.
use strict;
use warnings;

my $with_parents = @ARGV && $ARGV[0] eq "--with-parents" && shift @ARGV;
exit self_test() if @ARGV && $ARGV[0] eq '--self-test';
my @crates = @ARGV ? @ARGV : glob('crates/*');
my $circles = 0;
$circles += report($_) for grep { -d "$_/src" } @crates;
exit($circles ? 1 : 0);

# Prints the circles of one crate, and returns how many there are.
sub report {
    my ($crate) = @_;
    my $arrows  = arrows("$crate/src");
    my $count   = 0;
    for my $circle (circles($arrows)) {
        $count++;
        my %in = map { $_ => 1 } @$circle;
        printf "%d files import each other in a circle:\n", scalar @$circle;
        for my $from (@$circle) {
            for my $to (grep { $in{$_} } sort keys %{ $arrows->{$from} }) {
                print "  $from -> $to: ", join(', ', sort keys %{ $arrows->{$from}{$to} }), "\n";
            }
        }
    }
    return $count;
}

# Returns which file takes which names from which other: {from}{to}{name}.
sub arrows {
    my ($src) = @_;
    my %arrows;
    for my $root (grep { -f } "$src/lib.rs", "$src/main.rs", glob("$src/bin/*.rs")) {
        my %modules;
        read_module(\%modules, [], $root, $root =~ m{/(lib|main)\.rs$} ? $src : $root);
        for my $path (sort keys %modules) {
            my $module = $modules{$path};
            for my $reference (references($module)) {
                my ($file, $name) = resolve(\%modules, $reference, 0);
                next if !defined $file || $file eq $module->{file};
                next if !$with_parents && is_part_of($module->{file}, $file);
                $arrows{ $module->{file} }{$file}{$name} = 1;
            }
        }
    }
    return \%arrows;
}

# Says whether a file holds a module below that of another file.
sub is_part_of {
    my ($part, $whole) = @_;
    (my $folder = $whole) =~ s{(?:(?<=/)(?:mod|lib|main))?\.rs$}{};
    $folder =~ s{/?$}{/};
    return index($part, $folder) == 0;
}

# Reads a module and, below it, those that it declares. `folder` is where their files are.
sub read_module {
    my ($modules, $path, $file, $folder) = @_;
    open(my $handle, '<', $file) or die "$file: $!\n";
    my $text = do { local $/; <$handle> };
    add_module($modules, $path, $file, $folder, without_tests(without_literals($text)));
}

sub add_module {
    my ($modules, $path, $file, $folder, $text) = @_;
    my %module = (path => $path, file => $file, defines => {}, names => {}, globs => []);
    $modules->{ join '::', @$path } = \%module;
    my $body = '';
    # Modules within the file are modules of their own.
    while ($text =~ /\G(.*?)\bmod\s+(\w+)\s*(;|\{)/gcs) {
        my ($before, $name, $end) = ($1, $2, $3);
        $body .= $before;
        if ($end eq '{') {
            my $from = pos($text);
            my $to   = end_of_block($text, $from);
            add_module($modules, [ @$path, $name ], $file, "$folder/$name", substr($text, $from, $to - 1 - $from));
            pos($text) = $to;
        } else {
            my ($child) = grep { -f } "$folder/$name.rs", "$folder/$name/mod.rs";
            read_module($modules, [ @$path, $name ], $child, "$folder/$name") if defined $child;
        }
    }
    $body .= substr($text, pos($text) || 0);
    # Imports, then what is left.
    my $code = '';
    my @uses;
    while ($body =~ /\G(.*?)((?:\bpub\s*(?:\([^)]*\)\s*)?)?)\buse\s+([^;]*);/gcs) {
        $code .= $1;
        push @uses, [ $2, $3 ];
    }
    $code .= substr($body, pos($body) || 0);
    $module{code} = $code;
    my $top = top_level($code);
    $module{defines}{$2} = 1
        while $top =~ /\b(fn|struct|enum|union|trait|type|const|static|macro_rules!)\s+(?:mut\s+)?(\w+)/g;
    for my $use (@uses) {
        my ($public, $tree) = @$use;
        for my $leaf (leaves('', $tree)) {
            my ($to, $as) = @$leaf;
            my @to = absolute($modules, $path, split /::/, $to);
            next unless @to;
            if ($as eq '*') {
                push @{ $module{globs} }, [@to];
            } elsif ($as ne '_') {
                $module{names}{$as} = { to => [@to], passed_on => $public ne '' };
            }
        }
    }
}

# Lists what a use tree imports: path and name.
sub leaves {
    my ($prefix, $tree) = @_;
    $tree =~ s/^\s+|\s+$//g;
    if ($tree =~ /^([^{]*?)\{(.*)\}$/s) {
        my ($more, $inner) = ($1, $2);
        $more =~ s/\s+//g;
        my ($depth, $item, @items) = (0, '');
        for my $char (split //, "$inner,") {
            $depth++ if $char eq '{';
            $depth-- if $char eq '}';
            if ($char eq ',' && $depth == 0) { push @items, $item; $item = '' }
            else                             { $item .= $char }
        }
        return map { leaves("$prefix$more", $_) } grep { /\S/ } @items;
    }
    my ($path, $as) = split /\s+as\s+/, $tree;
    $path =~ s/\s+//g;
    $path = "$prefix$path";
    $path =~ s/::self$//;
    my ($last) = $path =~ /(\*|\w+)$/ or return;
    $path =~ s/(::)?\*$// if $last eq '*';
    return [ $path, defined $as ? $as : $last ];
}

# Returns a path from the crate's root; none where it leads out of the crate.
sub absolute {
    my ($modules, $path, @segments) = @_;
    my $first = shift @segments;
    return unless defined $first;
    my @at = @$path;
    if    ($first eq 'crate') { @at = () }
    elsif ($first eq 'self')  { }
    elsif ($first eq 'super') {
        pop @at;
        while (@segments && $segments[0] eq 'super') { shift @segments; pop @at }
    } else {
        # A name that stands here: a module below this one, or one that was imported.
        return (@at, '?', $first, @segments);
    }
    return ('', @at, @segments);
}

# Lists the paths that a module names, each from the crate's root.
sub references {
    my ($module) = @_;
    my ($code, $path, @found) = ($module->{code}, $module->{path});
    for my $name (sort keys %{ $module->{names} }) {
        my $import = $module->{names}{$name};
        push @found, $import->{to} if !$import->{passed_on} || $code =~ /\b\Q$name\E\b/;
    }
    push @found, @{ $module->{globs} };
    while ($code =~ /(?<![\w:\$])(\w+(?:\s*::\s*\w+)+)/g) {
        my @to = absolute(undef, $path, split /\s*::\s*/, $1);
        push @found, \@to if @to;
    }
    return @found;
}

# Returns the file that defines what a path names, and the name; nothing for a module, or for what is not of this crate.
sub resolve {
    my ($modules, $path, $depth) = @_;
    return if $depth > 16;
    my @segments = @$path;
    my $at       = '';
    if (@segments && $segments[0] eq '') {
        shift @segments;
    } else {
        my @here;
        push @here, shift @segments while @segments && $segments[0] ne '?';
        shift @segments;
        $at = join '::', @here;
        my $module = $modules->{$at} or return;
        my $first  = $segments[0];
        my $child  = $at eq '' ? $first : "$at\::$first";
        # The first segment has to be a module: a type was imported, or is defined, on its own.
        return unless $modules->{$child} || $module->{names}{$first};
    }
    while (@segments) {
        my $name   = shift @segments;
        my $module = $modules->{$at} or return;
        my $child  = $at eq '' ? $name : "$at\::$name";
        if ($modules->{$child} && !($module->{defines}{$name} && !@segments)) {
            $at = $child;
            next;
        }
        return ($module->{file}, $name) if $module->{defines}{$name};
        if (my $import = $module->{names}{$name}) {
            my @to = @{ $import->{to} };
            return if join(' ', @to) eq join(' ', @$path);
            return resolve($modules, [ @to, @segments ], $depth + 1);
        }
        for my $glob (@{ $module->{globs} }) {
            my ($file, $found) = resolve($modules, [ @$glob, $name ], $depth + 1);
            return ($file, $found) if defined $file && $file ne $module->{file};
        }
        return ($module->{file}, $name);
    }
    return;
}

# Returns the groups of files that reach each other (Tarjan's algorithm).
sub circles {
    my ($arrows) = @_;
    my ($counter, @stack, %index, %low, %on, @groups) = (0);
    my $visit;
    $visit = sub {
        my ($file) = @_;
        $index{$file} = $low{$file} = $counter++;
        push @stack, $file;
        $on{$file} = 1;
        for my $next (sort keys %{ $arrows->{$file} || {} }) {
            if (!defined $index{$next}) {
                $visit->($next);
                $low{$file} = $low{$next} if $low{$next} < $low{$file};
            } elsif ($on{$next} && $index{$next} < $low{$file}) {
                $low{$file} = $index{$next};
            }
        }
        if ($low{$file} == $index{$file}) {
            my @group;
            while (1) {
                my $member = pop @stack;
                $on{$member} = 0;
                push @group, $member;
                last if $member eq $file;
            }
            push @groups, [ sort @group ] if @group > 1;
        }
    };
    for my $file (sort keys %$arrows) { $visit->($file) unless defined $index{$file} }
    return @groups;
}

# Blanks comments, strings and characters.
sub without_literals {
    my ($text) = @_;
    $text =~ s{(//[^\n]*)|(/\*.*?\*/)|(b?r(\#*)".*?"\g4)|(b?"(?:\\.|[^"\\])*")|('(?:\\[^']*'|\\''|[^\\'\n]'))}
              {defined $1 || defined $2 ? ' ' : '""'}gsex;
    return $text;
}

# Takes away what is compiled for tests only.
sub without_tests {
    my ($text) = @_;
    my $out = '';
    while ($text =~ /\G(.*?)#\[cfg\(test\)\]\s*/gcs) {
        $out .= $1;
        while ($text =~ /\G#\[[^\]]*\]\s*/gc) { }
        if ($text =~ /\G(?:pub(?:\([^)]*\))?\s+)?use\b[^;]*;/gc) { next }
        if ($text =~ /\G[^;{]*;/gc)                              { next }
        if ($text =~ /\G[^{]*\{/gc) { pos($text) = end_of_block($text, pos($text)) }
    }
    return $out . substr($text, pos($text) || 0);
}

# Returns where the block ends whose brace opened before `from`.
sub end_of_block {
    my ($text, $from) = @_;
    my $depth = 1;
    pos($text) = $from;
    while ($text =~ /([{}])/g) {
        $depth += $1 eq '{' ? 1 : -1;
        return pos($text) if $depth == 0;
    }
    return length $text;
}

# Keeps what stands outside of all braces.
sub top_level {
    my ($text) = @_;
    my ($depth, $out) = (0, '');
    for my $piece (split /([{}])/, $text) {
        if    ($piece eq '{') { $depth++; $out .= ' ; ' }
        elsif ($piece eq '}') { $depth-- }
        elsif ($depth == 0)   { $out .= $piece }
    }
    return $out;
}

# Shows that planted circles are found, and that what only looks like one is not.
sub self_test {
    my $folder = `mktemp -d`;
    chomp $folder;
    my %cases = (
        'a plain circle' => [ 1, 'lib.rs' => "mod a; mod b;", 'a.rs' => "use crate::b::B; pub struct A;", 'b.rs' => "fn f() { crate::a::g() }\npub struct B;" ],
        'a circle through names that are passed on' => [ 1, 'lib.rs' => "mod x;", 'x/mod.rs' => "mod a; mod b; pub use a::A; pub use self::b::{B, C as D};", 'x/a.rs' => "use super::D; pub struct A;", 'x/b.rs' => "use crate::x::A; pub struct C; pub struct B;" ],
        'a circle through a module that was imported' => [ 1, 'lib.rs' => "mod a; mod b;", 'a.rs' => "use crate::b; fn f() { b::g() }", 'b.rs' => "use crate::a; fn g() { a::f() }" ],
        "a part and its whole" => [ 0, 'lib.rs' => "mod a; fn f() { a::g() } pub const LIMIT: u8 = 1;", 'a.rs' => "use crate::LIMIT;" ],
        'three files' => [ 1, 'lib.rs' => "mod a; mod b; mod c;", 'a.rs' => "use super::b::g; fn f() {}", 'b.rs' => "use super::c::h; fn g() {}", 'c.rs' => "use super::a::f; fn h() {}" ],
        'names that are only passed on' => [ 0, 'lib.rs' => "mod x;", 'x.rs' => "mod a; mod b; pub use a::A; pub use b::B; pub const C: u8 = 1;", 'x/a.rs' => "use super::{B, C}; pub struct A;", 'x/b.rs' => "use crate::x::C; pub struct B;" ],
        'tests, comments and strings' => [ 0, 'lib.rs' => "mod a; mod b; #[cfg(test)] mod tests;", 'a.rs' => "pub struct A; #[cfg(test)] use crate::b::B; #[cfg(test)] mod tests { use crate::b::{B}; }", 'b.rs' => "use crate::a::A; // crate::c::d\nconst T: &str = \"crate::tests::x\";", 'tests.rs' => "use crate::a::A;" ],
    );
    my $failed = 0;
    for my $name (sort keys %cases) {
        my ($expected, %files) = @{ $cases{$name} };
        my $src = "$folder/crate/src";
        system('rm', '-rf', "$folder/crate");
        system('mkdir', '-p', "$src/x") == 0 or die "could not make $src\n";
        while (my ($file, $text) = each %files) {
            open(my $out, '>', "$src/$file") or die "$file: $!\n";
            print $out $text;
            close($out);
        }
        my $found = () = circles(arrows($src));
        next if $found == $expected;
        print "self-test: $name: $found circles instead of $expected\n";
        $failed = 1;
    }
    system('rm', '-rf', $folder);
    print "self-test passed\n" unless $failed;
    return $failed;
}
